"""Images on which other precisions of a model are calibrated and measured: crops of its training sections.

Of each volume eight sections are taken, evenly spread; every second one is for calibration, those between are for
measuring, so that no map is measured on what its range was taken from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emboundary.model.geometry import reflect
from emboundary.model.inception import STRIDE
from emboundary.model.variants import Samples
from emboundary.service.errors import InputError
from emboundary.service.preparing.intensity import measure
from emboundary.service.volumes import open_volume
from emboundary.training.config import TrainConfig
from emboundary.training.synthetic import membranes

Images = NDArray[np.float32]

_SECTIONS = 8
# Ranges need many pixels, and measuring takes eight orientations of three networks.
_CALIBRATION_SIDE, _PROBE_SIDE = 384, 256


@dataclass(frozen=True)
class Source:
    """A volume of grey values; ``sections`` ``[first, stop)`` of it, all if None."""

    path: Path | str
    sections: tuple[int, int] | None = None


def training_sources(root: Path, config: TrainConfig) -> tuple[Source, ...]:
    """The sections that a configuration trains on."""
    return tuple(Source(root / volume.raw, volume.sections) for volume in config.data)


def read_samples(sources: Sequence[Source], context: int) -> Samples:
    """Read crops for a network that sees ``context`` neighbours on each side.

    Intensities are normalised by the whole volume's statistics, as inference does it; neighbours beyond the sections
    are reflected.

    Raises:
        InputError: a volume that cannot be read, is constant, or smaller than the stride; sections outside it.
    """
    calibration: list[Images] = []
    probes: list[Images] = []
    for source in sources:
        with open_volume(source.path) as volume:
            depth, height, width = volume.shape
            first, stop = source.sections or (0, depth)
            if not 0 <= first < stop <= depth:
                raise InputError(f"sections {first}:{stop} are not all in {source.path}; it has 0:{depth}")
            if min(height, width) < STRIDE:
                raise InputError(f"sections of {source.path} are {height} x {width}; at least {STRIDE} are needed")
            intensity = measure(volume).intensity
            chosen = np.unique(np.linspace(first, stop - 1, _SECTIONS).round().astype(int))
            for number, z in enumerate(chosen):
                sides = (_CALIBRATION_SIDE,) if number % 2 == 0 else (_PROBE_SIDE,)
                for side in sides if len(chosen) > 1 else (_CALIBRATION_SIDE, _PROBE_SIDE):
                    rows, columns = _middle(height, side), _middle(width, side)
                    planes = first + reflect(np.arange(z - context, z + context + 1) - first, stop - first)
                    crop = np.stack([volume[int(k) : int(k) + 1, rows, columns][0] for k in planes])
                    into = calibration if side == _CALIBRATION_SIDE else probes
                    into.append(intensity.normalise(crop)[None])
    return Samples(tuple(calibration), tuple(probes))


def _middle(length: int, side: int) -> slice:
    """The middle of an axis, at most ``side`` long, a multiple of the stride."""
    side = min(side, length) // STRIDE * STRIDE
    start = (length - side) // 2
    return slice(start, start + side)


def made_up_samples(context: int) -> Samples:
    """Probes for a model whose data are not at hand: synthetic membranes; they are no use for calibration."""
    raw, _ = membranes((2 * context + 1, _PROBE_SIDE, _PROBE_SIDE), seed=0)
    return Samples((), (((raw - raw.mean()) / raw.std()).astype(np.float32)[None],))
