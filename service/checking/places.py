"""Which parts of a volume are looked at: spread over it, always the same ones, those with contrast first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emboundary.model.geometry import Box, Readable, Triple
from emboundary.service.errors import InputError

# Bases of the Halton sequence along z, y and x.
_BASES = (5, 3, 2)


@dataclass(frozen=True)
class Place:
    """A part of one section, and its voxel values.

    Attributes:
        box: (z, y, x) in voxels, one section deep.
        values: of shape ``box.shape``.
    """

    box: Box
    values: NDArray[Any]

    @property
    def centre(self) -> Triple:
        """Its middle voxel (z, y, x)."""
        z, y, x = ((a + b) // 2 for a, b in zip(self.box.start, self.box.stop, strict=True))
        return z, y, x

    @property
    def constant(self) -> bool:
        """Whether every voxel has the same value, as in the empty parts of a volume."""
        return bool(self.values.min() == self.values.max())


@dataclass(frozen=True)
class Sample:
    """What was read of a volume.

    Attributes:
        places: those with contrast first, else in the order in which they were read.
        faults: what was wrong with the places that could not be read, one line each.
        voxels_per_second: at which the volume could be read, counting the whole chunks that had to be.
    """

    places: tuple[Place, ...]
    faults: tuple[str, ...]
    voxels_per_second: float

    @property
    def textured(self) -> tuple[Place, ...]:
        """The places that are not constant."""
        return tuple(place for place in self.places if not place.constant)


def spread(region: Box, side: int, count: int) -> list[Box]:
    """Up to ``count`` different boxes of one section and at most ``side`` squared, spread over a region.

    The first three lie at its centre and at its first and last corner, where reflection at the border plays a part;
    the others follow the Halton sequence, which leaves no large part of the region out.
    """
    z, y, x = region.shape
    shape = (1, min(side, y), min(side, x))
    corners = [(0.5, 0.5, 0.5), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)]
    boxes: list[Box] = []
    for fraction in chain(corners, map(_halton, range(1, 4 * count))):
        a, b, c = (
            start + round(f * (extent - part))
            for start, f, extent, part in zip(region.start, fraction, (z, y, x), shape, strict=True)
        )
        box = Box((a, b, c), (a + 1, b + shape[1], c + shape[2]))
        if box not in boxes:  # small regions have few places
            boxes.append(box)
        if len(boxes) == count:
            break
    return boxes


def _halton(number: int) -> tuple[float, float, float]:
    z, y, x = (_radical_inverse(number, base) for base in _BASES)
    return z, y, x


def _radical_inverse(number: int, base: int) -> float:
    """The digits of a number behind the point, in reverse."""
    inverse, weight = 0.0, 1.0
    while number:
        number, digit = divmod(number, base)
        weight /= base
        inverse += digit * weight
    return inverse


def read_sample(
    volume: Readable, chunks: Triple, boxes: list[Box], clock: Callable[[], float], deadline: float
) -> Sample:
    """Read boxes until ``clock`` passes the deadline, at least one.

    Raises:
        InputError: not one of them could be read.
    """
    places: list[Place] = []
    faults: list[str] = []
    voxels = 0
    began = now = clock()
    for box in boxes:
        if (places or faults) and now > deadline:
            break
        try:
            places.append(Place(box, np.asarray(volume[box.slices])))
        except InputError as error:
            faults.append(str(error))
        voxels += _touched(box, chunks, volume.shape)
        now = clock()
    if not places:
        raise InputError(faults[0])
    places.sort(key=lambda place: place.constant)  # a stable sort: the order stays otherwise
    return Sample(tuple(places), tuple(faults), voxels / max(now - began, 1e-9))


def _touched(box: Box, chunks: Triple, shape: tuple[int, ...]) -> int:
    """Voxels of all chunks that a box lies in."""
    start = (a // n * n for a, n in zip(box.start, chunks, strict=True))
    stop = (min(-(-b // n) * n, extent) for b, n, extent in zip(box.stop, chunks, shape, strict=True))
    z, y, x = (b - a for a, b in zip(start, stop, strict=True))
    return z * y * x
