"""How a map lies on disk: its chunks, the shards that hold them, and its pyramid.

level 0   chunk | chunk | chunk | chunk |        a chunk is what a viewer fetches at once
          shard         | shard         |        a shard is one file of whole chunks, where there are too many
level 1   chunk | chunk |                        each level is the mean over voxels of the one before
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emboundary.model.geometry import Box, Triple, round_up
from emboundary.service.errors import UsageError
from emboundary.service.volumes.axes import SpaceAxes

# 256 KiB of a uint8 map: a viewer's request takes milliseconds, and few are needed to fill a screen.
_CHUNK_VOXELS = 1 << 18
# A run holds several blocks, each at least a shard, at once.
_SHARD_VOXELS = 1 << 24
# File systems and copying tools are at ease with this many files, and slow far beyond it.
_FILES = 100_000
# Compressors take less than 2^31 bytes at once, and a block has to fit into memory.
_MOST_VOXELS = 1 << 28
# The coarsest level fits into one view.
_VIEW = 256
# Axes whose voxels are at most this much longer than the shortest are halved with it.
_ISOTROPIC = math.sqrt(2)


@dataclass(frozen=True)
class Level:
    """One resolution of a map.

    Attributes:
        path: its name inside the output.
        shape: (z, y, x) in voxels of this level.
        factors: voxels of level 0 along each side of one of this level.
        chunk: (z, y, x) in voxels of this level.
        shard: a whole multiple of ``chunk``; None: every chunk is a file of its own.
    """

    path: str
    shape: Triple
    factors: Triple
    chunk: Triple
    shard: Triple | None

    @property
    def unit(self) -> Triple:
        """What is stored as one file: no two writers may share one."""
        return self.shard or self.chunk


def default_chunk(shape: Triple, axes: SpaceAxes) -> Triple:
    """Chunks of up to 2^18 voxels that are nearly cubes in space, powers of two, clipped to the map.

    With voxels ``a`` times as high as wide: z = 64 / a^(2/3), and y = x as large as they may be.
    """
    z_size, _, x_size = relative_sizes(axes)
    wanted = 64 / (z_size / x_size) ** (2 / 3)
    z = min(_power_of_two(wanted), shape[0], _CHUNK_VOXELS)
    side = 1 << int(math.log2(_CHUNK_VOXELS / z) / 2)
    return z, min(side, shape[1]), min(side, shape[2])


def default_shard(shape: Triple, chunk: Triple) -> Triple | None:
    """None while the chunks of a map are few enough to be files; else shards of up to 2^24 voxels."""
    chunk = _clipped(chunk, shape)
    if math.prod(-(-n // c) for n, c in zip(shape, chunk, strict=True)) < _FILES:
        return None
    side = math.sqrt(_SHARD_VOXELS / chunk[0])
    y, x = (max(1, int(side) // c) * c for c in chunk[1:])
    return chunk[0], y, x


def plan_levels(
    shape: Triple, axes: SpaceAxes, chunk: Triple, shard: Triple | None, *, pyramid: bool
) -> tuple[Level, ...]:
    """Level 0 and, with ``pyramid``, coarser ones until y and x fit into one view of 256 voxels.

    Each level halves the axes whose voxels are shortest, so that voxels become cubes before they grow.

    Args:
        shape: of the map (z, y, x), in voxels.
        axes: their voxel sizes.
        chunk: of every level; clipped to the level.
        shard: of every level, a whole multiple of ``chunk``; None: no shards.
        pyramid: whether there are coarser levels.

    Raises:
        UsageError: a chunk below 1, a shard that is no whole multiple of it, or either of more than 2^28 voxels.
    """
    _check(chunk, shard)
    sizes = list(relative_sizes(axes))
    factors: Triple = (1, 1, 1)
    levels = [_level(0, shape, factors, chunk, shard)]
    while pyramid and max(levels[-1].shape[1:]) > _VIEW:
        last = levels[-1]
        shortest = min(size for size, n in zip(sizes, last.shape, strict=True) if n > 1)
        halved = [
            n > 1 and size <= shortest * _ISOTROPIC * (1 + 1e-9) for size, n in zip(sizes, last.shape, strict=True)
        ]
        sizes = [size * 2 if half else size for size, half in zip(sizes, halved, strict=True)]
        z, y, x = (2 * f if half else f for f, half in zip(factors, halved, strict=True))
        factors = (z, y, x)
        z, y, x = (-(-n // 2) if half else n for n, half in zip(last.shape, halved, strict=True))
        levels.append(_level(len(levels), (z, y, x), factors, chunk, shard))
    return tuple(levels)


def source_box(levels: tuple[Level, ...], number: int, box: Box) -> tuple[Box, Triple]:
    """The voxels of the level before from which a box of a level is made, and how many along each side of one."""
    finer, level = levels[number - 1], levels[number]
    z, y, x = (b // a for a, b in zip(finer.factors, level.factors, strict=True))
    start = (box.start[0] * z, box.start[1] * y, box.start[2] * x)
    stop = (box.stop[0] * z, box.stop[1] * y, box.stop[2] * x)
    return Box(start, stop).intersect(Box.of_shape(finer.shape)), (z, y, x)


def downsample(block: NDArray[Any], factors: Triple) -> NDArray[Any]:
    """Mean over boxes of ``factors`` voxels; boxes that the block's end cuts are averaged over what they hold.

    Whole boxes of a level, cut into blocks at multiples of ``factors``, give the same voxels as the level in one piece.

    Args:
        block: (z, y, x) of uint8, float16 or float32.
        factors: voxels of the block along each side of one of the result.

    Returns:
        An array of the block's type and of shape ceil(shape / factors); uint8 is rounded half to even, float16 is
        summed in float32.
    """
    # Sums of uint8 are exact in these, those of up to 2^16 voxels also in float32; and a quotient that is not half-way
    # between two levels lies further from half-way than float32 can round.
    kind = np.dtype(np.float32 if block.dtype != np.uint8 else np.uint16 if math.prod(factors) <= 257 else np.uint32)
    total, weight = block, np.ones((1, 1, 1), np.float32)
    for axis, factor in enumerate(factors):
        if factor > 1:
            total = _summed(total, axis, factor, kind)
            weight = weight * _counts(block.shape[axis], factor).reshape([-1 if i == axis else 1 for i in range(3)])
    mean: NDArray[Any] = np.divide(total, weight, dtype=np.float32)
    if block.dtype == np.uint8:
        np.rint(mean, out=mean)
    return mean.astype(block.dtype, copy=False)


def relative_sizes(axes: SpaceAxes) -> tuple[float, float, float]:
    """Voxel sizes in one unit; 1 each where they are not known to share one."""
    sizes = [axis.voxel_size_nm for axis in axes]
    if None in sizes and len({axis.unit for axis in axes}) == 1:
        sizes = [axis.scale for axis in axes]
    z, y, x = (size if size is not None and size > 0 and math.isfinite(size) else 0.0 for size in sizes)
    return (z, y, x) if z and y and x else (1.0, 1.0, 1.0)


def _summed(array: NDArray[Any], axis: int, factor: int, kind: np.dtype[Any]) -> NDArray[Any]:
    """Sums of ``factor`` neighbours along one axis; the last may have fewer."""
    view = np.moveaxis(array, axis, 0)
    total = view[::factor].astype(kind)
    for offset in range(1, factor):
        part = view[offset::factor]
        total[: len(part)] += part
    return np.moveaxis(total, 0, axis)


def _counts(extent: int, factor: int) -> NDArray[np.float32]:
    """How many voxels along one axis each sum holds."""
    counts = np.full(-(-extent // factor), factor, np.float32)
    if extent % factor:
        counts[-1] = extent % factor
    return counts


def _check(chunk: Triple, shard: Triple | None) -> None:
    if min(chunk) < 1 or math.prod(chunk) > _MOST_VOXELS:
        raise UsageError(f"chunk is {_show(chunk)}; each extent must be at least 1, and all of it at most 2^28 voxels")
    if shard is None:
        return
    if min(shard) < 1 or any(s % c for s, c in zip(shard, chunk, strict=True)):
        suggestion = tuple(round_up(max(s, 1), c) for s, c in zip(shard, chunk, strict=True))
        raise UsageError(
            f"shard is {_show(shard)}, chunk is {_show(chunk)}; a shard must hold whole chunks: give a multiple in "
            f"each axis, e.g. {','.join(map(str, suggestion))}"
        )
    if math.prod(shard) > _MOST_VOXELS:
        raise UsageError(f"shard is {_show(shard)}; it may have at most 2^28 voxels, as it is made in memory")


def _level(number: int, shape: Triple, factors: Triple, chunk: Triple, shard: Triple | None) -> Level:
    chunk = _clipped(chunk, shape)
    if shard is not None:
        # A shard that reaches beyond the level ends with the level's last chunk.
        z, y, x = (min(s, round_up(n, c)) for s, n, c in zip(shard, shape, chunk, strict=True))
        shard = (z, y, x)
    return Level(str(number), shape, factors, chunk, shard)


def _clipped(chunk: Triple, shape: Triple) -> Triple:
    z, y, x = (min(c, n) for c, n in zip(chunk, shape, strict=True))
    return z, y, x


def _power_of_two(value: float) -> int:
    return 1 << max(0, min(30, round(math.log2(value))))


def _show(triple: Triple) -> str:
    return ",".join(map(str, triple))
