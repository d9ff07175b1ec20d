"""Which parts of a volume are looked at: spread over it, always the same ones, those without contrast passed over."""

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


@dataclass(frozen=True)
class Sample:
    """What was read of a volume.

    Attributes:
        places: those with contrast.
        constant: how many there were besides whose voxels all have one value, as in the empty parts of a volume.
        faults: what was wrong with the places that could not be read, one line each.
        voxels_per_second: at which the places with contrast were read, counting the whole chunks that had to be.
    """

    places: tuple[Place, ...]
    constant: int
    faults: tuple[str, ...]
    voxels_per_second: float

    @property
    def tried(self) -> int:
        """Number of places that were looked at."""
        return len(self.places) + self.constant + len(self.faults)


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
    volume: Readable, chunks: Triple, boxes: list[Box], wanted: int, clock: Callable[[], float], deadline: float
) -> Sample:
    """Read boxes until there is contrast in so many, or ``clock`` passes the deadline; one at least.

    Raises:
        InputError: not one of them could be read.
    """
    places: list[Place] = []
    faults: list[str] = []
    constant = voxels = 0
    seconds, now = 0.0, clock()
    for box in boxes:
        if len(places) == wanted or ((places or constant or faults) and now > deadline):
            break
        began = now
        try:
            values = np.asarray(volume[box.slices])
        except InputError as error:
            faults.append(str(error))
            now = clock()
            continue
        now = clock()
        if values.min() == values.max():
            constant += 1
            continue
        places.append(Place(box, values))
        voxels += _touched(box, chunks, volume.shape)
        seconds += now - began
    if faults and not places and not constant:
        raise InputError(faults[0])
    return Sample(tuple(places), constant, tuple(faults), voxels / max(seconds, 1e-9))


def _touched(box: Box, chunks: Triple, shape: tuple[int, ...]) -> int:
    """Voxels of all chunks that a box lies in."""
    start = (a // n * n for a, n in zip(box.start, chunks, strict=True))
    stop = (min(-(-b // n) * n, extent) for b, n, extent in zip(box.stop, chunks, shape, strict=True))
    z, y, x = (b - a for a, b in zip(start, stop, strict=True))
    return z * y * x
