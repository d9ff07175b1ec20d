from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from emboundary.training.crops.boundaries import boundaries_of


def test_a_border_is_two_pixels_wide_and_a_gap_belongs_to_it() -> None:
    touching = np.array([[[1, 1, 2, 2]]])
    apart = np.array([[[1, 1, 0, 2]]])
    np.testing.assert_array_equal(boundaries_of(touching), [[[0, 1, 1, 0]]])
    np.testing.assert_array_equal(boundaries_of(apart), [[[0, 1, 1, 1]]])


def test_diagonal_neighbours_and_other_sections_do_not_matter() -> None:
    diagonal = np.array([[[1, 1, 1], [1, 1, 1], [1, 1, 2]]])
    np.testing.assert_array_equal(boundaries_of(diagonal)[0], [[0, 0, 0], [0, 0, 1], [0, 1, 1]])
    assert not boundaries_of(np.array([[[1]], [[2]]])).any()


@given(arrays(np.uint16, (2, 5, 6), elements=st.integers(0, 3)))
def test_it_is_its_definition(labels: NDArray[np.uint16]) -> None:
    _, height, width = labels.shape
    expected = np.zeros(labels.shape, bool)
    for z, y, x in np.ndindex(labels.shape):
        around = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
        neighbours = [labels[z, j, i] for j, i in around if 0 <= j < height and 0 <= i < width]
        expected[z, y, x] = labels[z, y, x] == 0 or any(n != labels[z, y, x] for n in neighbours)
    np.testing.assert_array_equal(boundaries_of(labels), expected)


def test_ids_of_64_bits_are_told_apart() -> None:
    big = np.array([[[2**63 + 1, 2**63 + 1, 2**63 + 2]]], dtype=np.uint64)
    np.testing.assert_array_equal(boundaries_of(big), [[[0, 1, 1]]])


@pytest.mark.parametrize("labels", [np.zeros((2, 3, 4), np.float32), np.zeros((3, 4), np.uint8)])
def test_labels_that_are_no_ids_are_refused(labels: NDArray[np.generic]) -> None:
    with pytest.raises(ValueError, match=r"labels are .* of shape .*; they must be integer ids \(z, y, x\)"):
        boundaries_of(labels)
