"""Intensity normalisation: ``(value - mean) / std`` with the statistics of the whole volume.

One pair of numbers for the whole volume, never per tile: per-tile statistics draw lines at tile borders.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emboundary.model.geometry import BlockGrid, Box, Readable, Triple
from emboundary.service.errors import InputError, UsageError

_READ_VOXELS = 1 << 24
# Counting needs 8 bytes per voxel, whatever their type.
_COUNTED_VOXELS = 1 << 22


@dataclass(frozen=True)
class Intensity:
    """Mean and standard deviation of a volume, in units of its voxel values.

    Raises:
        UsageError: a mean that is not finite, or a standard deviation that is not finite and positive.
    """

    mean: float
    std: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mean) and math.isfinite(self.std) and self.std > 0):
            raise UsageError(
                f"intensity is {self.mean:g},{self.std:g}; the mean must be finite and the standard deviation finite "
                "and above 0: give MEAN,STD of the volume's voxel values, e.g. 128,45.5"
            )

    @classmethod
    def parse(cls, text: str) -> Intensity:
        """Read ``MEAN,STD``.

        Raises:
            UsageError: not two numbers, or numbers outside the ranges above.
        """
        try:
            mean, std = (float(part) for part in text.split(","))
        except ValueError:
            raise UsageError(
                f"intensity is {text!r}; it must be two numbers MEAN,STD in voxel values, e.g. 128,45.5"
            ) from None
        return cls(mean, std)

    def __str__(self) -> str:
        return f"{self.mean!r},{self.std!r}"

    def normalise(self, array: NDArray[Any]) -> NDArray[np.float32]:
        """Return ``(array - mean) / std``, computed in float64 and rounded once to float32; same shape."""
        centred = np.subtract(array, self.mean, dtype=np.float64)
        scaled = np.empty(centred.shape, dtype=np.float32)
        with np.errstate(over="ignore"):  # infinite then, and found in the map
            np.divide(centred, self.std, out=scaled, casting="same_kind")
        return scaled


def measure(volume: Readable, progress: Callable[[int], None] | None = None) -> Intensity:
    """Mean and population standard deviation of a whole volume, read once, block by block.

    Integers are counted value by value, so their statistics are exact; floats are joined block by block in
    float64 (Chan, Golub and LeVeque 1983, "Algorithms for computing the sample variance").

    Args:
        volume: array-like (z, y, x) of integers up to 16 bit, or of floats; its attribute ``chunks``, where it
            has one, shapes the blocks.
        progress: called with the number of voxels of each block, once it has been read.

    Raises:
        InputError: a value that is NaN or infinite, with its place, or a volume that is constant.
    """
    z, y, x = volume.shape
    shape = (z, y, x)
    if 0 in shape:
        raise InputError(f"the volume has shape (z, y, x) = {shape}; it must hold at least one voxel")
    statistics: _Histogram | _Moments | None = None
    for box in BlockGrid(Box.of_shape(shape), reading_block(shape, getattr(volume, "chunks", None))):
        block = np.asarray(volume[box.slices])
        refuse_non_finite(block, box.start)
        if statistics is None:
            statistics = _Histogram(block.dtype) if block.dtype.kind in "iu" else _Moments()
        flat = block.reshape(-1)
        for first in range(0, flat.size, _COUNTED_VOXELS):
            statistics.add(flat[first : first + _COUNTED_VOXELS])
        if progress is not None:
            progress(box.voxels)
    assert statistics is not None  # the grid of a volume that is not empty has a block
    return statistics.intensity()


def reading_block(shape: Triple, chunks: Triple | None) -> Triple:
    """Block for a pass over a whole volume: whole chunks, as many along x, then y, as stay within memory bounds."""
    z, y, x = chunks or (1, shape[1], shape[2])
    wide = min(shape[2], x * max(1, _READ_VOXELS // (z * y * x)))
    high = min(shape[1], y * max(1, _READ_VOXELS // (z * y * wide)))
    return min(shape[0], z * max(1, _READ_VOXELS // (z * high * wide))), high, wide


def refuse_non_finite(block: NDArray[Any], start: Triple) -> None:
    """Refuse a block (z, y, x) of floats that holds NaN or an infinity; ``start`` is its place in the volume.

    Raises:
        InputError: names the first such voxel, counted from the volume's origin.
    """
    if block.dtype.kind != "f":
        return
    bad = ~np.isfinite(block)
    if bad.any():
        place = np.unravel_index(int(np.argmax(bad)), bad.shape)
        at = ", ".join(str(int(p) + s) for p, s in zip(place, start, strict=True))
        raise InputError(
            f"the volume holds {block[place]} at voxel (z, y, x) = ({at}); every value must be finite: "
            "replace such voxels, for example by the volume's mean"
        )


class _Histogram:
    """How often each value of an 8- or 16-bit integer type occurs."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._unsigned = np.dtype(f"u{dtype.itemsize}")
        # Counted by bit pattern: a signed value's pattern is an unsigned number.
        self._values = np.arange(1 << 8 * dtype.itemsize, dtype=self._unsigned).view(dtype.newbyteorder("="))
        self._counts = np.zeros(self._values.size, dtype=np.int64)

    def add(self, block: NDArray[Any]) -> None:
        native = block.astype(block.dtype.newbyteorder("="), copy=False)
        self._counts += np.bincount(native.view(self._unsigned), minlength=self._counts.size)

    def intensity(self) -> Intensity:
        # Python integers: sums of squares over a large volume do not fit 64 bits.
        seen = [(int(v), int(n)) for v, n in zip(self._values, self._counts, strict=True) if n]
        if len(seen) == 1:
            raise _constant(seen[0][0])
        count = sum(n for _, n in seen)
        total = sum(v * n for v, n in seen)
        squares = sum(v * v * n for v, n in seen)
        return Intensity(total / count, math.sqrt(squares * count - total * total) / count)


class _Moments:
    """Count, mean, sum of squared deviations from it, and range of floats."""

    def __init__(self) -> None:
        self._count = 0
        self._mean = 0.0
        self._squares = 0.0
        self._low, self._high = math.inf, -math.inf

    def add(self, block: NDArray[Any]) -> None:
        wide = block.astype(np.float64)
        self._low, self._high = min(self._low, float(wide.min())), max(self._high, float(wide.max()))
        with np.errstate(over="ignore", invalid="ignore"):
            mean = float(wide.mean())
            wide -= mean
            squares = float(np.square(wide, out=wide).sum())
        count = self._count + wide.size
        delta = mean - self._mean
        self._mean += delta * wide.size / count
        self._squares += squares + delta * delta * self._count * wide.size / count
        self._count = count

    def intensity(self) -> Intensity:
        if self._low == self._high:
            raise _constant(self._low)
        std = math.sqrt(self._squares / self._count)
        if not math.isfinite(std) or std == 0:
            raise InputError(
                f"the volume's values run from {self._low:g} to {self._high:g}, for which float64 gives no usable "
                "standard deviation; rescale them, or give --intensity MEAN,STD"
            )
        return Intensity(self._mean, std)


def _constant(value: float) -> InputError:
    return InputError(
        f"the volume is constant: every voxel is {value:g}, so there is no contrast to normalise by; check that it "
        "is the right volume, or give --intensity MEAN,STD"
    )
