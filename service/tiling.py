"""How a map is cut into blocks and chunks, so that no two blocks ever write to the same chunk."""

from __future__ import annotations

from dataclasses import dataclass

from emboundary.model.geometry import BlockGrid, Box, Triple, round_up
from emboundary.service.errors import UsageError

DEFAULT_TILE = 1024
# Voxels of one block; a few of them exist at once, each with 4 bytes of probability per voxel.
DEFAULT_BLOCK_VOXELS = 1 << 22
_CHUNK = 512


@dataclass(frozen=True)
class Tiling:
    """The cut of a map (z, y, x) into blocks that are computed and stored one by one.

    Attributes:
        shape: of the map, in voxels.
        block: shape of the blocks before they are clipped to the map; a whole multiple of ``chunk``.
        chunk: shape of the chunks that the output is stored in.
    """

    shape: Triple
    block: Triple
    chunk: Triple

    @classmethod
    def plan(
        cls,
        shape: Triple,
        stride: Triple,
        tile: int | None = None,
        *,
        depth: int = 1,
        block_voxels: int = DEFAULT_BLOCK_VOXELS,
    ) -> Tiling:
        """Cut a map of a given shape.

        Args:
            shape: of the map (z, y, x), in voxels.
            stride: of the network; blocks are multiples of it, so that nothing is computed twice without need.
            tile: wanted side of a block in y and x, rounded up as needed; None: 1024.
            depth: wanted depth of a block, best the chunk depth of the input, whose chunks are then read once.
            block_voxels: upper bound for a block, which limits its depth.

        Raises:
            UsageError: a tile below 1.
        """
        side = DEFAULT_TILE if tile is None else tile
        if side < 1:
            raise UsageError(f"tile is {side}; it must be at least 1 (pixels, rounded up to the model's stride)")
        y, chunk_y = _cut(shape[1], side, stride[1])
        x, chunk_x = _cut(shape[2], side, stride[2])
        z = max(1, min(shape[0], depth, block_voxels // (y * x)))
        return cls(shape, (z, y, x), (1, chunk_y, chunk_x))

    @property
    def grid(self) -> BlockGrid:
        """The blocks, counted from the map's origin."""
        return BlockGrid(Box.of_shape(self.shape), self.block)


def _cut(extent: int, side: int, stride: int) -> tuple[int, int]:
    """Length of a block and of a chunk along an axis: chunks up to about 512, neither much beyond the extent."""
    parts = -(-round_up(side, stride) // _CHUNK)
    chunk = round_up(-(-side // parts), stride)
    if extent <= chunk:
        return extent, extent
    return min(parts, -(-extent // chunk)) * chunk, chunk
