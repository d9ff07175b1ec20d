"""Reading a whole volume, or cells spread over it, in bounded memory, and past what cannot be read."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emboundary.model.geometry import BlockGrid, Box, Readable, Triple, round_up
from emboundary.service.errors import InputError, NonFiniteError
from emboundary.service.preparing.fill import PIECE, whole_pieces

CELL: Triple = (16, PIECE, PIECE)
_READ_VOXELS = 1 << 24
# A chunk that is larger is read in parts, and decoded once for each.
_CHUNK_VOXELS = 1 << 26
_ATTEMPTS = 3
# Damage beyond so many places is no longer narrowed down to single chunks.
_NARROWED = 64


def triple(volume: Readable) -> Triple:
    """Shape (z, y, x) of a volume."""
    z, y, x = volume.shape
    return z, y, x


def reading_block(shape: Triple, chunks: Triple | None) -> Triple:
    """Block for a pass over a whole volume: whole chunks, as many along x, then y, as stay within memory bounds.

    Blocks begin at multiples of 256 along x, so that they never cut the pieces that fill is looked for in; where
    chunks do not, a chunk at a block's side is read twice.
    """
    z, y, x = _unit(shape, chunks)
    common = math.lcm(chunks[2], PIECE) if chunks else x
    if z * y * common <= _READ_VOXELS:
        x = common
    wide = min(shape[2], x * max(1, _READ_VOXELS // (z * y * x)))
    high = min(shape[1], y * max(1, _READ_VOXELS // (z * y * wide)))
    return min(shape[0], z * max(1, _READ_VOXELS // (z * high * wide))), high, wide


def whole(shape: Triple, chunks: Triple | None) -> Iterator[Box]:
    """Blocks that cover a volume."""
    grid = BlockGrid(Box.of_shape(_trimmed(shape)), reading_block(shape, chunks))
    return (_with_rest(box, shape) for box in grid)


def cells(shape: Triple, count: int) -> Iterator[Box]:
    """Up to ``count`` cells spread over a volume: the same ones, in the same order, however it is stored.

    The points of a Halton sequence (bases 2, 3, 5 for z, y, x) on the grid of cells, each cell once: any beginning of
    the sequence is spread evenly.
    """
    grid = [-(-n // c) for n, c in zip(_trimmed(shape), CELL, strict=True)]
    total = math.prod(grid)
    seen: set[tuple[int, ...]] = set()
    index = 0
    while len(seen) < min(count, total):
        at = tuple(_radical_inverse(index, base, n) for base, n in zip((2, 3, 5), grid, strict=True))
        index += 1
        if at in seen:
            continue
        seen.add(at)
        z, y, x = (i * c for i, c in zip(at, CELL, strict=True))
        box = Box((z, y, x), (z + CELL[0], y + CELL[1], x + CELL[2]))
        yield _with_rest(box.intersect(Box.of_shape(_trimmed(shape))), shape)


@dataclass
class Scanner:
    """Reads boxes; what stays unreadable after some attempts is left out and noted.

    Attributes:
        volume: array-like (z, y, x).
        unreadable: boxes that were left out.
        error: why the first of them was.
    """

    volume: Readable
    unreadable: list[Box] = field(default_factory=list)
    error: InputError | None = None

    def read(self, box: Box) -> Iterator[tuple[Box, NDArray[Any]]]:
        """The box and its block, or what can be read of it in several.

        Raises:
            NonFiniteError: a value that is NaN or infinite, with its place.
        """
        try:
            yield box, self._block(box)
            return
        except NonFiniteError:
            raise
        except InputError as error:
            halves = _halves(box, self.volume) if len(self.unreadable) < _NARROWED else None
            if halves is None:
                block = self._again(box, error)
                if block is not None:
                    yield box, block
                return
        for half in halves:
            yield from self.read(half)

    def _again(self, box: Box, error: InputError) -> NDArray[Any] | None:
        for _ in range(_ATTEMPTS - 1):
            try:
                return self._block(box)
            except NonFiniteError:
                raise
            except InputError:
                continue
        self.unreadable.append(box)
        self.error = self.error or error
        return None

    def _block(self, box: Box) -> NDArray[Any]:
        return np.asarray(self.volume[box.slices])


def _halves(box: Box, volume: Readable) -> tuple[Box, Box] | None:
    """The box cut in two between chunks, along the axis that has most of them; None: it is a single one."""
    unit = _unit(triple(volume), getattr(volume, "chunks", None))
    stop = (*box.stop[:2], min(box.stop[2], whole_pieces(volume.shape[2])))
    counts = [-(-b // n) - a // n for a, b, n in zip(box.start, stop, unit, strict=True)]
    axis = counts.index(max(counts))
    if counts[axis] < 2:
        return None
    cut = (box.start[axis] // unit[axis] + counts[axis] // 2) * unit[axis]
    middle_stop, middle_start = list(box.stop), list(box.start)
    middle_stop[axis] = middle_start[axis] = cut
    return Box(box.start, (middle_stop[0], middle_stop[1], middle_stop[2])), Box(
        (middle_start[0], middle_start[1], middle_start[2]), box.stop
    )


def _unit(shape: Triple, chunks: Triple | None) -> Triple:
    """A chunk, along x with whole pieces around it; of a larger chunk as much as is read at once."""
    z, y, x = (min(c, n) for c, n in zip(chunks or (1, *shape[1:]), shape, strict=True))
    x = min(round_up(x, PIECE), shape[2], _CHUNK_VOXELS)
    y = min(y, max(1, _CHUNK_VOXELS // x))
    return min(z, max(1, _CHUNK_VOXELS // (y * x))), y, x


def _trimmed(shape: Triple) -> Triple:
    return (*shape[:2], whole_pieces(shape[2]))


def _with_rest(box: Box, shape: Triple) -> Box:
    """A box that ends where the last piece begins to have a rest takes that, too."""
    z, y, x = box.stop
    return Box(box.start, (z, y, shape[2] if x == whole_pieces(shape[2]) else x))


def _radical_inverse(index: int, base: int, extent: int) -> int:
    """The digits of ``index`` mirrored at the point, a number from 0 to below 1, times ``extent``, rounded down."""
    numerator, denominator = 0, 1
    while index:
        index, digit = divmod(index, base)
        numerator = numerator * base + digit
        denominator *= base
    return numerator * extent // denominator
