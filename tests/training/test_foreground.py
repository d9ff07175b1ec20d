from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from emboundary.training.scoring.foreground import foreground


def test_a_tolerance_of_one_takes_two_pixels_from_each_side_of_a_border() -> None:
    truth = np.repeat([[[1] * 6 + [2] * 6]], 3, axis=1)
    row = foreground(truth, border_tolerance=1)[0, 1]
    np.testing.assert_array_equal(row, [1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1])


def test_without_a_tolerance_every_label_counts() -> None:
    truth = np.array([[[1, 2, 0, 0, 3]]])
    np.testing.assert_array_equal(foreground(truth), [[[1, 1, 0, 0, 1]]])


def test_a_section_without_a_border_counts_as_a_whole() -> None:
    truth = np.stack([np.full((4, 4), 1), np.full((4, 4), 2), np.full((4, 4), 0)])
    kept = foreground(truth, border_tolerance=2)
    np.testing.assert_array_equal(kept, truth != 0)


@settings(deadline=None, max_examples=60)
@given(arrays(np.uint16, (2, 6, 7), elements=st.integers(0, 2)), st.sampled_from([0.5, 1.0, 1.5, 2.0, 2.9]))
def test_it_is_its_definition(truth: NDArray[np.uint16], tolerance: float) -> None:
    expected = truth != 0
    for z, section in enumerate(truth):
        pixels = list(np.ndindex(section.shape))
        borders = [
            (y, x)
            for y, x in pixels
            if any(abs(j - y) + abs(i - x) == 1 and section[j, i] != section[y, x] for j, i in pixels)
        ]
        for y, x in pixels:
            if any((j - y) ** 2 + (i - x) ** 2 <= tolerance**2 for j, i in borders):
                expected[z, y, x] = False
    np.testing.assert_array_equal(foreground(truth, border_tolerance=tolerance), expected)


@pytest.mark.parametrize("tolerance", [-1, float("nan")])
def test_a_negative_tolerance_is_refused(tolerance: float) -> None:
    with pytest.raises(ValueError, match=rf"^border_tolerance is {tolerance}; it must be 0 \(keep all\) or a distance"):
        foreground(np.ones((1, 2, 2), np.int64), border_tolerance=tolerance)
