from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emboundary.model.geometry import Box, Footprint
from emboundary.service.errors import UsageError
from emboundary.service.run.tiling import DEFAULT_TILE, Tiling, split

extents = st.integers(1, 3000)


def footprint(stride: int, halo: int) -> Footprint:
    return Footprint((0, halo * stride, halo * stride), (1, stride, stride))


@given(
    shape=st.tuples(st.integers(1, 100), extents, extents),
    unit=st.tuples(st.sampled_from([1, 16, 64]), st.sampled_from([32, 64, 128, 500]), st.sampled_from([32, 64, 500])),
    stride=st.sampled_from([1, 2, 4, 8, 12]),
    halo=st.integers(0, 8),
    tile=st.one_of(st.none(), st.integers(1, 4000)),
)
def test_blocks_are_whole_units_and_tiles_are_bounded(
    shape: tuple[int, int, int], unit: tuple[int, int, int], stride: int, halo: int, tile: int | None
) -> None:
    network = footprint(stride, halo)
    tiling = Tiling.plan(shape, unit, network, tile)
    for block, whole, extent in zip(tiling.block, unit, shape, strict=True):
        assert block % whole == 0 or block >= extent
    assert all(1 <= part <= block for part, block in zip(tiling.tile, tiling.block, strict=True))
    side = (tile or DEFAULT_TILE) + stride
    _, y, x = tiling.tile
    _, margin, _ = network.halo
    assert (y + 2 * margin) * (x + 2 * margin) <= (side + 2 * margin) ** 2


@pytest.mark.parametrize(
    ("shape", "unit", "tile", "block", "cut"),
    [
        ((20, 1024, 1024), (16, 128, 128), None, (16, 512, 1024), (16, 512, 1024)),
        ((20, 1024, 1024), (16, 128, 128), 1024, (16, 1024, 1024), (16, 1024, 1024)),
        ((999, 50000, 70000), (16, 128, 128), None, (16, 896, 896), (16, 896, 896)),
        ((3, 384, 384), (16, 128, 128), None, (3, 384, 384), (3, 384, 384)),
        ((3, 50, 61), (3, 50, 61), 24, (3, 50, 61), (3, 24, 24)),
        ((1, 100, 5000), (1, 100, 128), None, (1, 100, 1792), (1, 100, 1792)),
        ((64, 1024, 1024), (64, 1024, 1024), None, (64, 1024, 1024), (49, 512, 1024)),
        ((1, 1, 1), (1, 1, 1), None, (1, 1, 1), (1, 1, 1)),
        ((1 << 18, 1 << 18, 1 << 18), (64, 64, 64), None, (64, 896, 896), (34, 896, 896)),
    ],
)
def test_usual_cuts(
    shape: tuple[int, int, int], unit: tuple[int, int, int], tile: int | None, block: object, cut: object
) -> None:
    tiling = Tiling.plan(shape, unit, footprint(8, 6), tile)
    assert (tiling.block, tiling.tile) == (block, cut)


def test_wide_voxels_make_flat_tiles_and_small_blocks() -> None:
    thin = Tiling.plan((999, 9000, 9000), (64, 64, 64), footprint(8, 6), input_bytes=8, output_bytes=4)
    assert np.prod(thin.block) * 4 <= 1 << 26
    assert thin.tile[0] * (thin.tile[1] + 96) * (thin.tile[2] + 96) * 8 <= 1 << 25


def test_blocks_cover_the_map_once_and_tiles_their_block() -> None:
    tiling = Tiling.plan((5, 70, 45), (2, 16, 16), footprint(8, 1), 16)
    blocks, tiles = np.zeros(tiling.shape, dtype=int), np.zeros(tiling.shape, dtype=int)
    for block in tiling.grid:
        blocks[block.slices] += 1
        for tile in tiling.tiles(block):
            assert block.contains(tile)
            tiles[tile.slices] += 1
    assert (blocks == 1).all()
    assert (tiles == 1).all()


def test_parts_are_counted_from_the_box() -> None:
    assert [str(part) for part in split(Box((0, 3, 5), (1, 10, 9)), (1, 4, 4))] == ["0:1,3:7,5:9", "0:1,7:10,5:9"]


@pytest.mark.parametrize("tile", [0, -8])
def test_a_tile_below_one_is_refused(tile: int) -> None:
    with pytest.raises(UsageError, match=f"tile is {tile}; it must be at least 1"):
        Tiling.plan((1, 8, 8), (1, 8, 8), footprint(8, 1), tile)
