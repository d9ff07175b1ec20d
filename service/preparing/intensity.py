"""Intensity normalisation: ``(value - mean) / std`` with the statistics of the whole volume.

One pair of numbers for the whole volume, never per tile: per-tile statistics draw lines at tile borders.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emboundary.model.geometry import Box, Readable
from emboundary.service.errors import InputError, UsageError
from emboundary.service.normalising import normalised
from emboundary.service.preparing.fill import RULE, fill_mask, fill_value
from emboundary.service.preparing.scanning import CELL, Scanner, cells, triple, whole
from emboundary.service.preparing.tally import Summary, Tally
from emboundary.service.volumes.finite import refuse_non_finite

# Larger volumes are sampled, until so many voxels of data were seen, in so many cells at most.
_COUNTED_WHOLE = 1 << 30
_SAMPLED_VOXELS = 1 << 28
_MOST_CELLS = 4096
# A sample of which not one of so many places can be read is given up.
_UNREADABLE_AT_MOST = 64
_LISTED_BOXES = 16
# From so many voxels of 8 bit on, a table is made to normalise by.
_WORTH_A_TABLE = 1 << 18


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
        if array.dtype in (np.uint8, np.int8) and array.size % 2 == 0 and array.size >= _WORTH_A_TABLE:
            scaled = np.empty(array.size // 2, np.float64)
            pairs = np.ascontiguousarray(array).reshape(-1).view(np.uint16)
            np.take(_table_of_pairs(self, array.dtype), pairs, out=scaled, mode="clip")
            return scaled.view(np.float32).reshape(array.shape)
        return self._computed(array)

    def _computed(self, array: NDArray[Any]) -> NDArray[np.float32]:
        return normalised(array, self.mean, self.std)


@lru_cache(maxsize=4)
def _table_of_pairs(intensity: Intensity, dtype: np.dtype[Any]) -> NDArray[np.float64]:
    """Two normalised float32 in the bytes of one float64, for every two neighbours of an 8-bit type.

    Looking up pairs takes 0.6 ns for a voxel, computing 1.0; a table for 16-bit types is no faster than computing.
    """
    pairs = np.arange(1 << 16, dtype=np.uint16).view(dtype)
    return intensity._computed(pairs).view(np.float64)


@dataclass(frozen=True)
class Statistics:
    """Intensity of a volume, and how it was found.

    Attributes:
        intensity: mean and standard deviation.
        record: JSON values that describe the measurement: ``rule``, what was counted and what was left out, the
            range of values, and a coarse histogram (``counts`` and one more ``edges``).
    """

    intensity: Intensity
    record: dict[str, Any]


def measure(volume: Readable, progress: Callable[[int], None] | None = None) -> Statistics:
    """Mean and population standard deviation of a whole volume without its fill.

    Up to 2^30 voxels every one is read, once.  Larger volumes are sampled: cells of 16 x 256 x 256 voxels, spread
    evenly by a fixed rule, until 2^28 voxels of data were seen.  What is fill is told in ``fill``; neither rule
    depends on how the volume is stored.  Where all data have one value, fill counts as data.

    Args:
        volume: array-like (z, y, x) of integers up to 16 bit, or of floats; its attribute ``chunks``, where it
            has one, shapes the blocks that are read, and ``fill_value`` says which value stands for no data (0).
        progress: called with a number of voxels after each block; together they are those of the volume.

    Raises:
        NonFiniteError: a value that is NaN or infinite, with its place.
        InputError: a volume that is constant, or of which nothing can be read.
    """
    shape = triple(volume)
    if 0 in shape:
        raise InputError(f"the volume has shape (z, y, x) = {shape}; it must hold at least one voxel")
    voxels = math.prod(shape)
    survey = _Survey(volume)
    if voxels <= _COUNTED_WHOLE:
        for box in whole(shape, getattr(volume, "chunks", None)):
            survey.look(box)
            if progress is not None:
                progress(box.voxels)
        return survey.statistics({"rule": "every voxel"})
    advanced = 0
    looked = 0
    for box in cells(shape, _MOST_CELLS):
        survey.look(box)
        looked += 1
        if survey.hopeless or survey.counted >= _SAMPLED_VOXELS:
            break
        if progress is not None:
            done = int(voxels * max(survey.counted / _SAMPLED_VOXELS, looked / _MOST_CELLS))
            progress(done - advanced)
            advanced = done
    if progress is not None:
        progress(voxels - advanced)
    cell = "x".join(map(str, CELL))
    return survey.statistics({"rule": f"sample: Halton sequence over cells of {cell} voxels", "cells": looked})


class _Survey:
    """What has been seen of a volume."""

    def __init__(self, volume: Readable) -> None:
        self._scanner = Scanner(volume)
        self._fill = fill_value(volume)
        self._tally: Tally | None = None
        self._excluded = 0
        self.counted = 0

    @property
    def hopeless(self) -> bool:
        """Whether nothing could be read of many places."""
        return self._tally is None and len(self._scanner.unreadable) >= _UNREADABLE_AT_MOST

    def look(self, box: Box) -> None:
        """Take in a box, or what can be read of it."""
        for part, block in self._scanner.read(box):
            refuse_non_finite(block, part.start)
            if self._tally is None:
                self._tally = Tally.of(block.dtype)
            fill = fill_mask(block, self._fill)
            data = block if fill is None else block[~fill]
            self._tally.add(data)
            self.counted += data.size
            self._excluded += block.size - data.size

    def statistics(self, record: dict[str, Any]) -> Statistics:
        """The result, its record completed.

        Raises:
            InputError: there is none.
        """
        if self._tally is None:
            assert self._scanner.error is not None  # the grid of a volume that is not empty has a block
            raise self._scanner.error
        summary, excluded = self._tally.summary(), self._excluded
        if excluded and (summary is None or summary.low == summary.high):
            self._tally.add_repeated(self._fill, excluded)
            summary, excluded = self._tally.summary(), 0
        assert summary is not None
        unreadable = self._scanner.unreadable
        return Statistics(
            _intensity(summary, record.get("cells")),
            record
            | {
                "voxels": summary.count,
                "fill": RULE,
                "fill_value": self._fill,
                "excluded_fill": excluded,
                "low": summary.low,
                "high": summary.high,
                "histogram": summary.bins.as_json(),
            }
            | ({"unreadable": _listed(unreadable)} if unreadable else {}),
        )


def _intensity(summary: Summary, cells: int | None) -> Intensity:
    if summary.low == summary.high:
        seen = "every voxel" if cells is None else f"every voxel of {cells} cells that were sampled"
        raise InputError(
            f"the volume is constant: {seen} is {summary.low:g}, so there is no contrast to normalise by; check that "
            "it is the right volume, or give --intensity MEAN,STD"
        )
    if not math.isfinite(summary.std) or summary.std == 0:
        raise InputError(
            f"the volume's values run from {summary.low:g} to {summary.high:g}, for which float64 gives no usable "
            "standard deviation; rescale them, or give --intensity MEAN,STD"
        )
    return Intensity(summary.mean, summary.std)


def _listed(boxes: list[Box]) -> list[str]:
    more = len(boxes) - _LISTED_BOXES
    return [str(box) for box in boxes[:_LISTED_BOXES]] + ([f"and {more} more"] if more > 0 else [])
