"""A volume on another grid in y and x, and the way back for its map; z stays.

Resampling is bicubic (Keys 1981, "Cubic convolution interpolation for digital image processing", a = -1/2) with the
kernel widened where pixels get larger, cut off and renormalised at the border: the rule of ``PIL.Image.resize``, which
the tests compare with.  It is written out here because a part of a section must come out exactly as it does from the
whole (law 1), and Pillow rounds the place of a part to float32.

    model's grid     |  .  |  .  |  .  |  .  |      pixel i of ``new`` has its centre at (i + 1/2) old / new
    volume's grid    | . | . | . | . | . | . |      of the other grid, whatever part of it is computed
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emboundary.model.geometry import Box, Readable, Triple
from emboundary.service.errors import UsageError

_LARGEST = 16


class Rescaled:
    """A volume at the pixel size that the network was trained on; reads as float32.

    Attributes:
        shape: (z, y, x), rounded to whole pixels.
        dtype: float32.

    Raises:
        UsageError: a factor that is not between 1/16 and 16.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, volume: Readable, factors: tuple[float, float]) -> None:
        z, y, x = volume.shape
        for name, factor in zip("yx", factors, strict=True):
            if not 1 / _LARGEST <= factor <= _LARGEST:
                raise UsageError(
                    f"rescaling along {name} is by {factor:g}; it must be between 1/{_LARGEST} and {_LARGEST}: give "
                    "the right --voxel-size Z,Y,X in nm, or leave --rescale out"
                )
        self._volume = volume
        self._there = tuple(
            _Resampling(old, max(1, round(old * factor))) for old, factor in zip((y, x), factors, strict=True)
        )
        self._back = tuple(_Resampling(axis.new, axis.old) for axis in self._there)
        self.shape: Triple = (z, self._there[0].new, self._there[1].new)

    def __getitem__(self, key: tuple[slice, slice, slice], /) -> NDArray[np.float32]:
        """Resample a box; ``key`` is one slice each for z, y and x, with steps of 1."""
        bounds = [part.indices(extent) for part, extent in zip(key, self.shape, strict=True)]
        (z0, z1, _), *sides = bounds
        wanted = Box((z0, sides[0][0], sides[1][0]), (z1, sides[0][1], sides[1][1]))
        source = _source(self._there, wanted)
        return _resample(self._there, np.asarray(self._volume[source.slices]), source, wanted)

    def needed(self, box: Box) -> Box:
        """The box of this grid that must be predicted to know ``box`` of the volume's grid."""
        return _source(self._back, box)

    def restore(self, probability: NDArray[Any], box: Box, wanted: Box) -> NDArray[np.float32]:
        """Bring a map back to the volume's grid.

        Args:
            probability: the map on this grid, shape ``box.shape``.
            box: where that lies; it holds ``needed(wanted)``.
            wanted: a box of the volume's grid.

        Returns:
            Probabilities in [0, 1], shape ``wanted.shape``.
        """
        if not box.contains(self.needed(wanted)):
            raise ValueError(f"box {box} is too small to restore {wanted}; it must hold {self.needed(wanted)}")
        found = _resample(self._back, probability, box, wanted)
        return np.clip(found, 0, 1, out=found)


@dataclass(frozen=True)
class _Resampling:
    """One axis of ``old`` pixels resampled to ``new``."""

    old: int
    new: int

    @property
    def _scale(self) -> float:
        """Pixels of ``old`` under one step of the kernel."""
        return max(1.0, self.old / self.new)

    @property
    def _reach(self) -> int:
        return 0 if self.old == self.new else math.ceil(2 * self._scale + 0.5)

    def source(self, start: int, stop: int) -> tuple[int, int]:
        """The pixels of ``old`` that pixels ``start`` to ``stop`` of ``new`` are made of."""
        first, last = (((2 * i + 1) * self.old) // (2 * self.new) for i in (start, stop - 1))
        return max(0, first - self._reach), min(self.old, last + self._reach + 1)

    def apply(self, image: NDArray[np.float32], origin: int, start: int, stop: int) -> NDArray[np.float32]:
        """Resample the first axis of an image that begins at pixel ``origin`` of ``old``.

        Every pixel is a sum in one fixed order, so that its value does not depend on the part that is computed.
        """
        if self.old == self.new:
            return image[start - origin : stop - origin]
        first, weights = self._weights(start, stop)
        total = np.zeros((stop - start, image.shape[1]), np.float32)
        term = np.empty_like(total)
        for tap, weight in enumerate(weights.T):
            if not weight.any():
                continue
            np.take(image, first + (tap - self._reach - origin), axis=0, out=term, mode="clip")
            term *= weight[:, None]
            total += term
        return total

    def _weights(self, start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The pixel of ``old`` under each centre, and the weights of those around it, (pixel, tap)."""
        # Whole and remaining part in integers: a float64 far from the origin would lose places.
        centres = [divmod((2 * i + 1) * self.old, 2 * self.new) for i in range(start, stop)]
        first = np.array([whole for whole, _ in centres], np.int64)
        rest = np.array([part / (2 * self.new) for _, part in centres])
        offsets = np.arange(-self._reach, self._reach + 1)
        weights = _keys((offsets[None] + 0.5 - rest[:, None]) / self._scale)
        pixels = first[:, None] + offsets[None]
        weights[(pixels < 0) | (pixels >= self.old)] = 0
        return first, (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def _keys(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    d = np.abs(distance)
    near = (1.5 * d - 2.5) * d * d + 1
    far = ((-0.5 * d + 2.5) * d - 4) * d + 2
    weights: NDArray[np.float64] = np.where(d < 1, near, np.where(d < 2, far, 0.0))
    return weights


def _source(axes: tuple[_Resampling, ...], box: Box) -> Box:
    (y0, y1), (x0, x1) = (axis.source(a, b) for axis, a, b in zip(axes, box.start[1:], box.stop[1:], strict=True))
    return Box((box.start[0], y0, x0), (box.stop[0], y1, x1))


def _resample(axes: tuple[_Resampling, ...], block: NDArray[Any], source: Box, wanted: Box) -> NDArray[np.float32]:
    """Resample ``block``, which lies at ``source`` of the old grid, to ``wanted`` of the new one."""
    result = np.empty(wanted.shape, np.float32)
    y, x = axes
    for n in range(wanted.shape[0]):
        section = block[n + wanted.start[0] - source.start[0]].astype(np.float32)
        rows = y.apply(section, source.start[1], wanted.start[1], wanted.stop[1])
        columns = np.ascontiguousarray(rows.T)
        result[n] = x.apply(columns, source.start[2], wanted.start[2], wanted.stop[2]).T
    return result
