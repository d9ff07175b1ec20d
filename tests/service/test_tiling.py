from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emboundary.service.errors import UsageError
from emboundary.service.tiling import Tiling

extents = st.integers(1, 3000)


@given(
    shape=st.tuples(st.integers(1, 40), extents, extents),
    stride=st.sampled_from([1, 2, 4, 8, 12]),
    tile=st.one_of(st.none(), st.integers(1, 4000)),
    depth=st.integers(1, 100),
)
def test_blocks_are_whole_chunks_and_bounded(
    shape: tuple[int, int, int], stride: int, tile: int | None, depth: int
) -> None:
    tiling = Tiling.plan(shape, (1, stride, stride), tile, depth=depth, block_voxels=1 << 22)
    for block, chunk, extent in zip(tiling.block, tiling.chunk, shape, strict=True):
        assert block % chunk == 0
        assert 1 <= chunk <= extent
        assert block < extent + chunk
    z, y, x = tiling.block
    assert z == 1 or z * y * x <= 1 << 22
    assert z <= depth
    side = tile or 1024
    # Rounding up to strides, and to whole chunks of whole strides, costs less than a stride per chunk and one more.
    assert max(y, x) < side + stride * (side // 512 + 2)


@pytest.mark.parametrize(
    ("shape", "tile", "block", "chunk"),
    [
        ((16, 1024, 1024), None, (1, 1024, 1024), (1, 512, 512)),
        ((16, 5000, 300), None, (1, 1024, 300), (1, 512, 300)),
        ((1, 5000, 5000), 96, (1, 96, 96), (1, 96, 96)),
        ((1, 5000, 5000), 100, (1, 104, 104), (1, 104, 104)),
        ((1, 5000, 5000), 700, (1, 704, 704), (1, 352, 352)),
        ((1, 1, 1), None, (1, 1, 1), (1, 1, 1)),
    ],
)
def test_usual_cuts(
    shape: tuple[int, int, int], tile: int | None, block: tuple[int, int, int], chunk: tuple[int, int, int]
) -> None:
    tiling = Tiling.plan(shape, (1, 8, 8), tile)
    assert (tiling.block, tiling.chunk) == (block, chunk)


def test_the_grid_covers_the_map_once() -> None:
    tiling = Tiling.plan((5, 70, 45), (1, 8, 8), 16, depth=2)
    count = np.zeros(tiling.shape, dtype=int)
    for box in tiling.grid:
        count[box.slices] += 1
    assert (count == 1).all()


@pytest.mark.parametrize("tile", [0, -8])
def test_a_tile_below_one_is_refused(tile: int) -> None:
    with pytest.raises(UsageError, match=f"tile is {tile}; it must be at least 1"):
        Tiling.plan((1, 8, 8), (1, 8, 8), tile)
