"""Labelled sections and the crops that training draws from them.

Every batch is a pure function of (seed, step): a resumed run draws what an uninterrupted one would have, and
two networks trained with one seed see the same crops in the same order.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emboundary.service.errors import EmboundaryError, InputError
from emboundary.service.volumes import open_volume
from emboundary.training.config import AugmentConfig, DataConfig, Plane, SamplingConfig, TrainConfig
from emboundary.training.crops.augment import augmented_crop
from emboundary.training.crops.boundaries import boundaries_of

# The least of the ids that imglib2's label multisets reserve: outside, invalid, transparent.
_RESERVED = np.uint64(2**64 - 3)


class DataError(EmboundaryError):
    """Training data that is missing, unreadable or does not fit together."""


@dataclass(frozen=True)
class LabelledVolume:
    """Sections with their boundary targets.

    Attributes:
        name: as in the configuration.
        raw: normalised intensities (value - mean) / std, float32, axes (z, y, x).
        target: True = boundary, same shape.
        mean, std: of the whole volume's raw voxels.
        share: of the crops that training draws, in relation to the other volumes' shares.
        soft: 255 times what training learns in place of ``target``, where other networks teach it too; same shape.
    """

    name: str
    raw: NDArray[np.float32]
    target: NDArray[np.bool_]
    mean: float
    std: float
    share: float = 1.0
    soft: NDArray[np.uint8] | None = None

    @property
    def learned(self) -> NDArray[np.bool_] | NDArray[np.uint8]:
        """The target of training."""
        return self.target if self.soft is None else self.soft


# The axes of a volume (z, y, x) in the order that makes each plane a section.
_TURNED: dict[Plane, tuple[int, int, int]] = {"yx": (0, 1, 2), "zx": (1, 0, 2), "zy": (2, 0, 1)}


def training_volumes(root: Path, config: TrainConfig) -> tuple[LabelledVolume, ...]:
    """The training sections of all volumes of a configuration; each plane of a volume of cubes is one by itself.

    Raises:
        DataError: as ``load_volume``.
    """
    return tuple(
        _fitting(load_volume(root, volume, plane=plane), len(volume.planes), plane, config.sampling.crop)
        for volume in config.data
        for plane in volume.planes
    )


def _fitting(volume: LabelledVolume, planes: int, plane: Plane, crop: int) -> LabelledVolume:
    """One of several planes of a volume: its part of the share, continued by reflection up to the size of a crop."""
    share = volume.share / planes
    missing = [max(0, crop - side) for side in volume.raw.shape[1:]]
    if plane == "yx" or not any(missing):
        return replace(volume, share=share)
    pads = [(0, 0), *((n // 2, n - n // 2) for n in missing)]
    raw, target = np.pad(volume.raw, pads, mode="reflect"), np.pad(volume.target, pads, mode="reflect")
    soft = None if volume.soft is None else np.pad(volume.soft, pads, mode="reflect")
    return replace(volume, raw=raw, target=target, soft=soft, share=share)


def load_volume(
    root: Path, config: DataConfig, sections: tuple[int, int] | None = None, *, plane: Plane = "yx"
) -> LabelledVolume:
    """Read a volume's training sections, or the given range ``[first, stop)`` of it.

    Intensities are normalised by the whole volume's statistics, as inference does it.

    Args:
        root: folder that the configuration's paths are relative to.
        config: the volume.
        sections: ``[first, stop)`` in place of the training sections.
        plane: whose sections are given, all that lie within those of ``yx``.

    Raises:
        DataError: a file that is missing or no volume, shapes that differ, sections outside the volume, a raw
            volume that is constant, labels that are no integers or missing in places, a target without both classes.
    """
    raw, truth = _read(root, config.raw), _read(root, config.target, labels=config.is_marked)
    if raw.shape != truth.shape:
        raise DataError(f"{config.raw} has shape {raw.shape}, {config.target} {truth.shape}; they must agree")
    first, stop = sections or config.sections
    if not 0 <= first < stop <= raw.shape[0]:
        raise DataError(f"sections {first}:{stop} are not all in {config.name}; they must be within 0:{raw.shape[0]}")
    if config.labels is not None:
        _refuse_unlabelled(truth[first:stop], config.labels, first)
    turned = truth[first:stop].transpose(_TURNED[plane])
    try:
        target = _marked(turned, config)
    except ValueError as error:
        raise DataError(f"{config.target}: {error}") from error
    if not 0 < target.mean() < 1:
        raise DataError(f"{config.target}, sections {first}:{stop}: every pixel is of one class; both must occur")
    normalised, mean, std = _normalised(raw, slice(first, stop), config)
    sections_of_plane = np.ascontiguousarray(normalised.transpose(_TURNED[plane]))
    soft = _soft(root, config, target, raw.shape, (slice(first, stop), plane))
    return LabelledVolume(config.name, sections_of_plane, target, mean, std, config.share, soft)


def load_sections(root: Path, config: DataConfig) -> LabelledVolume:
    """Read all sections of a volume, whose target nobody needs: nothing is boundary in it.

    Raises:
        DataError: a file that is missing or no volume, or a volume that is constant.
    """
    raw = _read(root, config.raw)
    normalised, mean, std = _normalised(raw, slice(None), config)
    return LabelledVolume(config.name, normalised, np.zeros(raw.shape, bool), mean, std)


def _normalised(raw: NDArray[Any], sections: slice, config: DataConfig) -> tuple[NDArray[np.float32], float, float]:
    """Some sections in standard deviations of the whole volume, and its mean and standard deviation."""
    mean, std = float(raw.mean(dtype=np.float64)), float(raw.std(dtype=np.float64))
    if not std:
        raise DataError(f"{config.raw} is constant: every voxel is {mean:g}; there is nothing to learn from")
    return (raw[sections].astype(np.float32) - np.float32(mean)) / np.float32(std), mean, std


def _marked(truth: NDArray[Any], config: DataConfig) -> NDArray[np.bool_]:
    """What is boundary: above 0 in a map of membranes, where neurons meet, or one half and more of a soft map."""
    if config.labels is not None:
        return boundaries_of(truth)
    least = 0 if config.is_marked else 127 if truth.dtype == np.uint8 else np.nextafter(0.5, 0)
    return np.ascontiguousarray(truth > least)


def _soft(
    root: Path, config: DataConfig, marked: NDArray[np.bool_], shape: tuple[int, ...], where: tuple[slice, Plane]
) -> NDArray[np.uint8] | None:
    """What training learns in place of what people marked, for distillation: 255 times a soft target."""
    if config.soft is None:
        return None
    soft = _read(root, config.soft)
    if soft.shape != shape:
        raise DataError(f"{config.soft} has shape {soft.shape}, {config.raw} {shape}; they must agree")
    if soft.dtype != np.uint8:
        if soft.dtype.kind != "f" or not (np.isfinite(soft).all() and soft.min() >= 0 and soft.max() <= 1):
            raise DataError(
                f"{config.soft} is {soft.dtype}; it must hold probabilities: float, 0 to 1, or uint8, 255 times them"
            )
        soft = np.round(soft * 255)
    sections, plane = where
    levels = soft[sections].transpose(_TURNED[plane])
    weight = config.soft_weight if config.is_marked else 1.0
    return np.round((1 - weight) * 255 * marked + weight * levels).astype(np.uint8)


def _refuse_unlabelled(labels: NDArray[Any], name: str, first: int) -> None:
    """Refuse ids by which tools say that a voxel has no label: negative ones, and CREMI's and Paintera's."""
    if labels.dtype.kind == "i":
        missing = labels < 0
    elif labels.dtype == np.uint64:
        missing = labels >= _RESERVED
    else:
        return
    if missing.any():
        z, y, x = (int(places[0]) for places in missing.nonzero())
        whole = [first + k for k, section in enumerate(missing) if not section.any()]
        raise DataError(
            f"{name} has no label at {missing.sum()} voxels, the first at ({first + z}, {y}, {x}), id "
            f"{labels[z, y, x]}; every voxel must have one: give sections that are labelled throughout "
            f"({f'{len(whole)} of these are, from {whole[0]} to {whole[-1]}' if whole else 'none of these is'}), or "
            "crop both volumes"
        )


def _read(root: Path, name: str, *, labels: bool = False) -> NDArray[Any]:
    path = root / name
    if not path.exists() and "::" not in name:
        raise DataError(f"{path} does not exist; give the folder of the training data with --data")
    try:
        with open_volume(path, labels=labels) as volume:
            return volume[:, :, :]
    except InputError as error:
        raise DataError(str(error)) from error


@dataclass(frozen=True)
class Batch:
    """Crops (N, 2 context + 1, crop, crop) and targets (N, 1, crop, crop), float32."""

    image: NDArray[np.float32]
    target: NDArray[np.float32]


@dataclass(frozen=True)
class CropSampler:
    """Random augmented crops; each volume gives its share of them, whatever its size.

    Attributes:
        context: neighbouring sections on each side that a crop brings as channels; at the ends of a volume's
            training sections they are reflected about the last one's centre, as inference does at the volume's.

    Raises:
        DataError: a crop larger than a section.
    """

    volumes: tuple[LabelledVolume, ...]
    sampling: SamplingConfig
    augmentation: AugmentConfig
    seed: int
    context: int = 0

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
        places = np.random.default_rng([self.seed, step])
        crops = [self._crop(places, (self.seed, step, place)) for place in range(self.sampling.batch)]
        return Batch(np.stack([image for image, _ in crops]), np.stack([target for _, target in crops])[:, None])

    def _crop(
        self, places: np.random.Generator, seed: tuple[int, ...]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        shares = np.array([volume.share for volume in self.volumes])
        volume = self.volumes[int(places.choice(len(self.volumes), p=shares / shares.sum()))]
        side = self.sampling.crop
        z, y, x = (int(places.integers(n)) for n in np.array(volume.raw.shape) - (0, side - 1, side - 1))
        sections = volume.raw[_reflected(z, self.context, volume.raw.shape[0])]
        return augmented_crop(sections, volume.learned[z], (y, x), side, self.augmentation, seed)


def _reflected(z: int, context: int, depth: int) -> list[int]:
    """Sections ``z - context`` to ``z + context``, reflected at the centres of the first and the last of ``depth``."""
    period = max(1, 2 * (depth - 1))
    return [min(k % period, -k % period) for k in range(z - context, z + context + 1)]
