"""Labelled sections and the crops that training draws from them.

Every batch is a pure function of (seed, step): a resumed run draws what an uninterrupted one would have, and
two networks trained with one seed see the same crops in the same order.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from emboundary.training.augment import augment
from emboundary.training.config import AugmentConfig, DataConfig, SamplingConfig


class DataError(ValueError):
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

    Raises:
        DataError: a file that is missing or no TIFF, shapes that differ, sections outside the volume, a
            membrane map without both classes.
    """
    raw, membranes = (_read_stack(root / name) for name in (config.raw, config.membranes))
    if raw.shape != membranes.shape:
        raise DataError(f"{config.raw} has shape {raw.shape}, {config.membranes} {membranes.shape}; they must agree")
    first, stop = sections or config.sections
    if not 0 <= first < stop <= raw.shape[0]:
        raise DataError(f"sections {first}:{stop} of {config.name}, which has sections 0:{raw.shape[0]}")
    target = membranes[first:stop] > 0
    if not 0 < target.mean() < 1:
        raise DataError(f"{config.membranes}, sections {first}:{stop}: every pixel is of one class; both must occur")
    mean, std = float(raw.mean(dtype=np.float64)), float(raw.std(dtype=np.float64))
    normalised = (raw[first:stop].astype(np.float32) - np.float32(mean)) / np.float32(std)
    return LabelledVolume(config.name, normalised, target, mean, std)


def _read_stack(path: Path) -> NDArray[np.generic]:
    try:
        stack: NDArray[np.generic] = np.asarray(tifffile.imread(path))
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; give the folder of the training data with --data") from error
    except tifffile.TiffFileError as error:
        raise DataError(f"{path} is not a TIFF stack: {error}") from error
    if stack.ndim != 3:
        raise DataError(f"{path} has {stack.ndim} axes; a stack of sections has three, (z, y, x)")
    return stack


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
                    "a crop must fit into a section"
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
