"""How a map is cut: into blocks that are stored one by one, and blocks into tiles that the network sees at once.

map, counted from its own origin (the ROI's first voxel)
+----------------+----------------+---
| block          | block          |        block: whole multiple of the output's chunk or shard, so that
| tile   | tile  |                |               no two blocks ever touch one file
|        |       |                |        tile:  what is read, with its halo, and computed in one go
+----------------+----------------+---
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from emboundary.model.geometry import BlockGrid, Box, Footprint, Triple, round_up
from emboundary.service.errors import UsageError

DEFAULT_TILE = 896
# Encoded bytes of one block: a few exist at once, being filled, waiting and being stored.
BLOCK_BYTES = 1 << 26
# Bytes that are read for one tile, with its halo; a few tiles are read ahead.
_TILE_BYTES = 1 << 25


@dataclass(frozen=True)
class Tiling:
    """The cut of a map (z, y, x) into blocks, and of blocks into tiles.

    Attributes:
        shape: of the map, in voxels.
        block: shape of the blocks before they are clipped to the map.
        tile: shape of the tiles before they are clipped to their block.
    """

    shape: Triple
    block: Triple
    tile: Triple

    @classmethod
    def plan(
        cls,
        shape: Triple,
        unit: Triple,
        footprint: Footprint,
        tile: int | None = None,
        *,
        input_bytes: int = 1,
        output_bytes: int = 1,
        block_bytes: int = BLOCK_BYTES,
    ) -> Tiling:
        """Cut a map so that as little as possible is computed twice, within bounds of memory.

        Args:
            shape: of the map (z, y, x), in voxels.
            unit: shape of the parts in which the output is stored, its chunks or shards.
            footprint: halo and stride of the network.
            tile: a tile with its halo holds as many pixels as a square of this side with its halo; None: 896.
            input_bytes: of one voxel that is read.
            output_bytes: of one voxel that is stored.
            block_bytes: of one block that is stored, about.

        Raises:
            UsageError: a tile below 1.
        """
        side = DEFAULT_TILE if tile is None else tile
        if side < 1:
            raise UsageError(f"tile is {side}; it must be at least 1 (pixels, rounded up to the model's stride)")
        z, y, x = (min(u, n) for u, n in zip(unit, shape, strict=True))
        _, halo, _ = footprint.halo
        pixels = (round_up(side, footprint.stride[1]) + 2 * halo) ** 2
        most = max(1, min(pixels, block_bytes // (output_bytes * z)))
        block_y, block_x = best_cut((shape[1], shape[2]), (y, x), halo, most)
        tile_y, tile_x = best_cut((block_y, block_x), (footprint.stride[1], footprint.stride[2]), halo, pixels)
        read = (tile_y + 2 * halo) * (tile_x + 2 * halo) * input_bytes
        deepest = _TILE_BYTES // read - 2 * footprint.context
        return cls(shape, (z, block_y, block_x), (max(1, min(z, deepest)), tile_y, tile_x))

    @property
    def grid(self) -> BlockGrid:
        """The blocks, counted from the map's origin."""
        return BlockGrid(Box.of_shape(self.shape), self.block)

    def tiles(self, block: Box) -> Iterator[Box]:
        """The tiles of a block, z slowest."""
        return split(block, self.tile)


def split(box: Box, part: Triple) -> Iterator[Box]:
    """Parts of a box, counted from its first voxel, clipped to it; z slowest."""
    starts = (range(a, b, n) for a, b, n in zip(box.start, box.stop, part, strict=True))
    for z, y, x in product(*starts):
        yield Box((z, y, x), (z + part[0], y + part[1], x + part[2])).intersect(box)


def best_cut(extent: tuple[int, int], unit: tuple[int, int], halo: int, pixels: int) -> tuple[int, int]:
    """Sides (y, x) of parts, multiples of ``unit``, for which the halos that are read beside them are smallest.

    Args:
        extent: (y, x) of what is cut, in voxels.
        unit: (y, x) that the sides are multiples of, unless a side is the whole extent.
        halo: read on both sides of a part, in voxels.
        pixels: upper bound for a part with its halo; a part of one unit is allowed whatever its size.
    """
    square = max(1, math.isqrt(pixels) - 2 * halo)
    ys, xs = (_sides(n, u, square) for n, u in zip(extent, unit, strict=True))
    best, least = (ys[0], xs[0]), (math.inf, 0)
    for y in ys:
        # Of the sides that fit beside this one the longest is the cheapest.
        fitting = bisect_right(xs, pixels // (y + 2 * halo) - 2 * halo)
        x = xs[max(0, fitting - 1)]
        read = math.prod(n + 2 * halo * -(-n // side) for n, side in zip(extent, (y, x), strict=True))
        cost = read, -y * x  # where halos cost the same, few large parts
        if fitting and cost < least:
            best, least = (y, x), cost
    return best


def _sides(extent: int, unit: int, square: int) -> list[int]:
    """Sides worth trying, ascending: a unit, and those up to twice the square's that divide the extent evenly."""
    tried = range(round_up(max(1, min(64, square)), unit), 2 * square + 1, unit)
    even = (min(extent, round_up(-(-extent // -(-extent // side)), unit)) for side in tried)
    return sorted({min(extent, unit), *even})
