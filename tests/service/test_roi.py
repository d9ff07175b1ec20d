from __future__ import annotations

import pytest

from emboundary.model.geometry import Box
from emboundary.service.errors import UsageError
from emboundary.service.run.roi import parse_roi

SHAPE = (16, 100, 200)


def test_a_roi_is_half_open_and_in_zyx_order() -> None:
    assert parse_roi("0:16, 10:100, 5:6", SHAPE) == Box((0, 10, 5), (16, 100, 6))


def test_without_a_roi_the_whole_volume_is_meant() -> None:
    assert parse_roi(None, SHAPE) == Box.of_shape(SHAPE)


@pytest.mark.parametrize("text", ["", "0:1", "0:1,0:1", "0:1,0:1,0:1,0:1", "a:b,0:1,0:1", "-1:1,0:1,0:1", "0:1,:,0:1"])
def test_other_forms_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match=r"it must be Z0:Z1,Y0:Y1,X0:X1 in whole voxels, e\.g\. 0:16,0:100,0:200"):
        parse_roi(text, SHAPE)


@pytest.mark.parametrize("text", ["3:3,0:1,0:1", "0:1,5:4,0:1"])
def test_an_empty_roi_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="every stop must be above its start"):
        parse_roi(text, SHAPE)


@pytest.mark.parametrize("text", ["0:17,0:100,0:200", "0:1,99:101,0:1", "20:21,0:1,0:1"])
def test_a_roi_that_leaves_the_volume_is_refused_not_clipped(text: str) -> None:
    with pytest.raises(UsageError, match="the volume ends at 0:16,0:100,0:200; a ROI must lie inside the volume"):
        parse_roi(text, SHAPE)
