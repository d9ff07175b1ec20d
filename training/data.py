"""Labelled sections and the crops that training draws from them.

Every batch is a pure function of (seed, step): a resumed run draws what an uninterrupted one would have, and
two networks trained with one seed see the same crops in the same order.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emboundary.service.errors import EmboundaryError, InputError
from emboundary.service.volumes import open_volume
from emboundary.training.augment import augment
from emboundary.training.config import AugmentConfig, DataConfig, SamplingConfig


class DataError(EmboundaryError):
    """Training data that is missing, unreadable or does not fit together."""


@dataclass(frozen=True)
class LabelledVolume:
    """Sections with their boundary targets.

    Attributes:
        name: as in the configuration.
        raw: normalised intensities (value - mean) / std, float32, axes (z, y, x).
        target: True = boundary, same shape.
        mean, std: of the raw voxels of these sections.
    """

    name: str
    raw: NDArray[np.float32]
    target: NDArray[np.bool_]
    mean: float
    std: float


def load_volume(root: Path, config: DataConfig, sections: tuple[int, int] | None = None) -> LabelledVolume:
    """Read a volume's training sections, or the given range ``[first, stop)`` of it.

    Intensities are normalised by the whole volume's statistics, as inference does it.

    Args:
        root: folder that the configuration's paths are relative to.
        config: the volume.
        sections: ``[first, stop)`` in place of the training sections.

    Raises:
        DataError: a file that is missing or no volume, shapes that differ, sections outside the volume, a raw
            volume that is constant, a membrane map without both classes.
    """
    raw, membranes = (_read(root, name) for name in (config.raw, config.membranes))
    if raw.shape != membranes.shape:
        raise DataError(f"{config.raw} has shape {raw.shape}, {config.membranes} {membranes.shape}; they must agree")
    first, stop = sections or config.sections
    if not 0 <= first < stop <= raw.shape[0]:
        raise DataError(f"sections {first}:{stop} are not all in {config.name}; they must be within 0:{raw.shape[0]}")
    target = membranes[first:stop] > 0
    if not 0 < target.mean() < 1:
        raise DataError(f"{config.membranes}, sections {first}:{stop}: every pixel is of one class; both must occur")
    mean, std = float(raw.mean(dtype=np.float64)), float(raw.std(dtype=np.float64))
    if not std:
        raise DataError(f"{config.raw} is constant: every voxel is {mean:g}; there is nothing to learn from")
    normalised = (raw[first:stop].astype(np.float32) - np.float32(mean)) / np.float32(std)
    return LabelledVolume(config.name, normalised, target, mean, std)


def _read(root: Path, name: str) -> NDArray[Any]:
    path = root / name
    if not path.exists() and "::" not in name:
        raise DataError(f"{path} does not exist; give the folder of the training data with --data")
    try:
        with open_volume(path) as volume:
            return volume[:, :, :]
    except InputError as error:
        raise DataError(str(error)) from error


@dataclass(frozen=True)
class Batch:
    """Crops and targets: both (N, 1, crop, crop), float32."""

    image: NDArray[np.float32]
    target: NDArray[np.float32]


@dataclass(frozen=True)
class CropSampler:
    """Random augmented crops; volumes are drawn by their share of all sections.

    Raises:
        DataError: a crop larger than a section.
    """

    volumes: tuple[LabelledVolume, ...]
    sampling: SamplingConfig
    augmentation: AugmentConfig
    seed: int

    def __post_init__(self) -> None:
        for volume in self.volumes:
            if min(volume.raw.shape[1:]) < self.sampling.crop:
                raise DataError(
                    f"crop is {self.sampling.crop}, sections of {volume.name} are {volume.raw.shape[1:]}; "
                    "a crop must fit into a section: give a smaller sampling.crop"
                )

    def batch(self, step: int) -> Batch:
        """The batch of one step."""
        # Places and changes are drawn from separate streams, so that switching an augmentation off leaves
        # the places as they are.
        places = np.random.default_rng([self.seed, step, 0])
        changes = np.random.default_rng([self.seed, step, 1])
        crops = [self._crop(places, changes) for _ in range(self.sampling.batch)]
        return Batch(np.stack([c[0] for c in crops])[:, None], np.stack([c[1] for c in crops])[:, None])

    def _crop(
        self, places: np.random.Generator, changes: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        sections = np.array([v.raw.shape[0] for v in self.volumes])
        volume = self.volumes[int(places.choice(len(self.volumes), p=sections / sections.sum()))]
        side = self.sampling.crop
        z, y, x = (int(places.integers(n)) for n in np.array(volume.raw.shape) - (0, side - 1, side - 1))
        window = (z, slice(y, y + side), slice(x, x + side))
        return augment(volume.raw[window], volume.target[window].astype(np.float32), self.augmentation, changes)
