from __future__ import annotations

import math
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emboundary.service.preparing.fill import PIECE, whole_pieces
from emboundary.service.preparing.scanning import CELL, cells, reading_block, whole


@pytest.mark.parametrize(
    ("shape", "chunks"),
    [
        ((100, 4000, 4000), (1, 64, 4000)),
        ((64, 2048, 2048), (64, 64, 64)),
        ((3, 50, 50), None),
        ((64, 2048, 2048), (1, 2048, 2048)),
        ((40, 3000, 3000), (16, 512, 512)),
    ],
)
def test_reading_blocks_are_whole_chunks_of_bounded_size(
    shape: tuple[int, int, int], chunks: tuple[int, int, int] | None
) -> None:
    block = reading_block(shape, chunks)
    assert math.prod(block) <= 1 << 24
    for extent, chunk, everything in zip(block, chunks or (1, *shape[1:]), shape, strict=True):
        assert extent % chunk == 0 or extent == everything


@settings(deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 1 << 10)] * 3),
    chunks=st.tuples(*[st.integers(1, 1 << 40)] * 3),
)
def test_reading_blocks_are_bounded_whatever_the_chunks(
    shape: tuple[int, int, int], chunks: tuple[int, int, int]
) -> None:
    block = reading_block(shape, chunks)
    assert all(1 <= b <= n for b, n in zip(block, shape, strict=True))
    assert math.prod(block) <= 1 << 26
    assert block[2] % PIECE == 0 or block[2] == shape[2]


def test_a_chunk_larger_than_memory_is_read_in_parts() -> None:
    assert math.prod(reading_block((1, 1 << 15, 1 << 15), (1, 1 << 15, 1 << 15))) == 1 << 26
    assert math.prod(reading_block((1, 1, 1 << 30), (1, 1, 1 << 30))) == 1 << 26


@settings(deadline=None)
@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 1200)),
    chunks=st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 1200)),
)
def test_blocks_cover_a_volume_once_and_never_cut_pieces(
    shape: tuple[int, int, int], chunks: tuple[int, int, int]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("emboundary.service.preparing.scanning._READ_VOXELS", 1)
        boxes = list(whole(shape, chunks))
    count = np.zeros(shape, np.int64)
    for box in boxes:
        count[box.slices] += 1
        assert box.start[2] % PIECE == 0
        assert box.stop[2] == shape[2] or (box.stop[2] % PIECE == 0 and box.stop[2] < whole_pieces(shape[2]))
    assert (count == 1).all()


def test_few_cells_are_all_looked_at_once() -> None:
    shape = (50, 700, 1030)
    count = np.zeros(shape, np.int64)
    for box in cells(shape, 1000):
        count[box.slices] += 1
        assert all(start % n == 0 for start, n in zip(box.start, CELL, strict=True))
    assert (count == 1).all()


def test_cells_are_spread_evenly() -> None:
    shape = (1 << 12, 1 << 14, 1 << 14)
    octants = np.zeros((2, 2, 2), np.int64)
    for box in islice(cells(shape, 4096), 240):
        octants[tuple(2 * a // n for a, n in zip(box.start, shape, strict=True))] += 1
    assert octants.min() >= 24
    assert octants.max() <= 36
