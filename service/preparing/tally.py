"""Statistics of values that come in parts: exact counts of integers, moments of floats."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BINS = 64
# Counting needs 8 bytes per voxel, whatever their type, and these should stay in the processor's cache.
_COUNTED_VOXELS = 1 << 17
# Values below 2^-1000 share a bin.
_LEAST_EXPONENT = -1000


@dataclass(frozen=True)
class Bins:
    """A coarse histogram; its bins are ``[index, index + 1) * 2^exponent`` wide, at most 64.

    Such bins nest, so that what has been counted in narrow ones can be merged exactly: the same values give the
    same histogram, in whatever parts they come.
    """

    exponent: int
    counts: dict[int, int]

    @classmethod
    def between(cls, low: float, high: float) -> Bins:
        """The narrowest empty bins for values of that range."""
        largest = max(abs(low), abs(high))
        # Below, float64 has nothing to tell apart.
        exponent = max(math.frexp(largest)[1] - 53, _LEAST_EXPONENT) if largest else _LEAST_EXPONENT
        span = high / 2 - low / 2  # the whole span may overflow
        if span > 0:
            exponent = max(exponent, math.frexp(span)[1] - 8)
        while _index(high, exponent) - _index(low, exponent) >= _BINS:
            exponent += 1
        return cls(exponent, {})

    def widened(self, exponent: int) -> Bins:
        """The same counts in bins of at least that width."""
        shift = max(0, exponent - self.exponent)
        merged: dict[int, int] = {}
        for index, count in self.counts.items():
            merged[index >> shift] = merged.get(index >> shift, 0) + count
        return Bins(self.exponent + shift, merged)

    def add(self, values: NDArray[np.float64], counts: NDArray[np.int64] | None = None) -> None:
        """Count values of the range, each once or as often as told."""
        index = values * math.ldexp(1, -self.exponent)
        np.floor(index, out=index)
        first = int(index.min())
        index -= first
        weights = np.bincount(index.astype(np.int64), counts).astype(np.int64)
        for offset in np.flatnonzero(weights):
            at = first + int(offset)
            self.counts[at] = self.counts.get(at, 0) + int(weights[offset])

    def as_json(self) -> dict[str, list[float] | list[int]]:
        """Counts, and the edges of their bins: one more than counts."""
        first, last = min(self.counts), max(self.counts)
        return {
            "counts": [self.counts.get(index, 0) for index in range(first, last + 1)],
            "edges": [math.ldexp(index, self.exponent) for index in range(first, last + 2)],
        }


@dataclass(frozen=True)
class Summary:
    """What is known of all values.

    Attributes:
        count: how many there are.
        mean: their mean.
        std: their population standard deviation; not finite where float64 cannot hold it.
        low: the smallest.
        high: the largest.
        bins: a coarse histogram.
    """

    count: int
    mean: float
    std: float
    low: float
    high: float
    bins: Bins


class Tally(ABC):
    """Collects values; the parts may come in any number and shape."""

    @staticmethod
    def of(dtype: np.dtype[Any]) -> Tally:
        """A tally for integers of 8 or 16 bit, or for all other numbers."""
        # A table of all values of 32 bit would take 48 GiB.
        return Histogram(dtype) if dtype.kind in "iu" and dtype.itemsize <= 2 else Moments()

    def add(self, values: NDArray[Any]) -> None:
        """Take in an array of any shape, of finite values."""
        flat = values.reshape(-1)
        for first in range(0, flat.size, _COUNTED_VOXELS):
            self._add(flat[first : first + _COUNTED_VOXELS])

    @abstractmethod
    def add_repeated(self, value: float, count: int) -> None:
        """Take in one value so many times."""

    @abstractmethod
    def summary(self) -> Summary | None:
        """Statistics of what was taken in; None where that is nothing."""

    @abstractmethod
    def _add(self, flat: NDArray[Any]) -> None: ...


class Histogram(Tally):
    """How often each value of an 8- or 16-bit integer type occurs."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._unsigned = np.dtype(f"u{dtype.itemsize}")
        # Counted by bit pattern: a signed value's pattern is an unsigned number.
        self._values = np.arange(1 << 8 * dtype.itemsize, dtype=self._unsigned).view(dtype.newbyteorder("="))
        self._counts = np.zeros(self._values.size, dtype=np.int64)

    def _add(self, flat: NDArray[Any]) -> None:
        native = flat.astype(flat.dtype.newbyteorder("="), copy=False)
        self._counts += np.bincount(native.view(self._unsigned), minlength=self._counts.size)

    def add_repeated(self, value: float, count: int) -> None:
        """Take in one value so many times."""
        self._counts[self._values == value] += count

    def summary(self) -> Summary | None:
        """Mean and standard deviation, rounded once."""
        # Python integers: sums of squares over a large volume do not fit 64 bits.
        seen = sorted((int(v), int(n)) for v, n in zip(self._values, self._counts, strict=True) if n)
        if not seen:
            return None
        count = sum(n for _, n in seen)
        total = sum(v * n for v, n in seen)
        squares = sum(v * v * n for v, n in seen)
        low, high = seen[0][0], seen[-1][0]
        bins = Bins.between(low, high).widened(0)
        values, counts = zip(*seen, strict=True)
        bins.add(np.array(values, np.float64), np.array(counts, np.int64))
        std = math.sqrt(squares * count - total * total) / count
        return Summary(count, total / count, std, low, high, bins)


class Moments(Tally):
    """Count, mean, sum of squared deviations from it, and range of floats and wide integers.

    Parts are joined in float64 (Chan, Golub and LeVeque 1983, "Algorithms for computing the sample variance").
    """

    def __init__(self) -> None:
        self._count = 0
        self._mean = 0.0
        self._squares = 0.0
        self._low, self._high = math.inf, -math.inf
        self._bins: Bins | None = None

    def _add(self, flat: NDArray[Any]) -> None:
        wide = flat.astype(np.float64)
        self._reach(float(wide.min()), float(wide.max())).add(wide)
        with np.errstate(over="ignore", invalid="ignore"):
            mean = float(wide.mean())
            wide -= mean
            squares = float(np.square(wide, out=wide).sum())
        self._join(wide.size, mean, squares)

    def add_repeated(self, value: float, count: int) -> None:
        """Take in one value so many times."""
        self._reach(value, value).add(np.array([value], np.float64), np.array([count], np.int64))
        self._join(count, value, 0.0)

    def _reach(self, low: float, high: float) -> Bins:
        self._low, self._high = min(self._low, low), max(self._high, high)
        wanted = Bins.between(self._low, self._high)
        self._bins = wanted if self._bins is None else self._bins.widened(wanted.exponent)
        return self._bins

    def _join(self, size: int, mean: float, squares: float) -> None:
        count = self._count + size
        delta = mean - self._mean
        self._mean += delta * size / count
        self._squares += squares + delta * delta * self._count * size / count
        self._count = count

    def summary(self) -> Summary | None:
        """Mean and standard deviation."""
        if self._bins is None:
            return None
        std = math.sqrt(self._squares / self._count) if self._squares >= 0 else math.nan
        return Summary(self._count, self._mean, std, self._low, self._high, self._bins)


def _index(value: float, exponent: int) -> int:
    return math.floor(math.ldexp(value, -exponent))
