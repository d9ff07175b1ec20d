from __future__ import annotations

from itertools import groupby
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from emboundary.service.preparing.fill import PIECE, RUN, fill_mask, whole_pieces


def by_hand(row: list[int], fill: int) -> list[bool]:
    """The rule, voxel by voxel."""
    starts = list(range(0, len(row), PIECE))
    if len(starts) > 1 and len(row) - starts[-1] < RUN:
        starts.pop()
    found: list[bool] = []
    for start, stop in zip(starts, [*starts[1:], len(row)], strict=True):
        piece = row[start:stop]
        for same, run in groupby(piece, lambda value: value == fill):
            length = len(list(run))
            found += [same and length >= min(RUN, len(piece))] * length
    return found


RUNS = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 150)), min_size=1, max_size=9)


@settings(deadline=None)
@given(rows=st.lists(RUNS, min_size=1, max_size=3), length=st.integers(1, 900), fill=st.integers(0, 1))
def test_fill_is_runs_within_pieces(rows: list[list[tuple[int, int]]], length: int, fill: int) -> None:
    array = np.zeros((1, len(rows), length), np.uint8)
    for y, runs in enumerate(rows):
        values = np.concatenate([np.full(n, value) for value, n in runs])
        array[0, y] = np.resize(values, length)
    expected = np.array([[by_hand(row.tolist(), fill) for row in array[0]]])
    found = fill_mask(array, fill)
    np.testing.assert_array_equal(np.zeros_like(expected) if found is None else found, expected)


@pytest.mark.parametrize("length", [RUN - 1, RUN, RUN + 1])
def test_a_run_is_fill_from_its_least_length_on(length: int) -> None:
    array = np.ones((1, 1, 200), np.uint8)
    array[..., 50 : 50 + length] = 0
    found = fill_mask(array, 0)
    assert (0 if found is None else found.sum()) == (length if length >= RUN else 0)


@pytest.mark.parametrize(
    ("extent", "expected"), [(1, 1), (31, 31), (256, 256), (257, 256), (287, 256), (288, 288), (512, 512), (543, 512)]
)
def test_a_short_rest_joins_the_piece_before(extent: int, expected: int) -> None:
    assert whole_pieces(extent) == expected


@pytest.mark.parametrize("fill", [300, -1, 0.5, float("nan")])
def test_a_fill_value_that_the_type_does_not_hold_is_nowhere(fill: Any) -> None:
    array: NDArray[np.uint8] = np.zeros((1, 2, 64), np.uint8)
    assert fill_mask(array, fill) is None
