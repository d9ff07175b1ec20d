from __future__ import annotations

import pytest

from emboundary.service.errors import UsageError
from emboundary.service.preparing.voxel_size import factors, mismatch, nearest

VNC, CORTEX = (50.0, 4.6, 4.6), (30.0, 6.0, 6.0)


@pytest.mark.parametrize("size", [(50.0, 4.6, 4.6), (8.0, 4.6, 4.6), (50.0, 5.7, 3.7), (30.0, 6.1, 6.1)])
def test_sizes_near_one_trained_on_fit_whatever_their_depth(size: tuple[float, float, float]) -> None:
    assert mismatch(size, (VNC, CORTEX)) is None


def test_a_size_far_from_all_names_both_the_factor_and_the_remedy() -> None:
    assert mismatch((8.0, 8.0, 12.0), (VNC, CORTEX)) == (
        "the volume has pixels (y, x) of 8 x 12 nm, the model was trained on 6 x 6 nm: they differ by a factor of 2; "
        "give --rescale, or --voxel-size Z,Y,X in nm if the volume's is wrong"
    )


def test_a_smaller_size_is_as_far_as_a_larger_one() -> None:
    text = mismatch((50.0, 2.3, 4.6), (VNC,))
    assert text is not None
    assert "differ by a factor of 2;" in text


def test_a_volume_that_does_not_say_its_size_gets_a_note() -> None:
    assert mismatch(None, (VNC, CORTEX)) == (
        "the volume does not say its voxel size; the model was trained on pixels (y, x) of 4.6 x 4.6 nm or 6 x 6 nm: "
        "give --voxel-size Z,Y,X in nm to have it compared"
    )


def test_factors_lead_to_the_nearest_size() -> None:
    assert nearest((40.0, 8.0, 8.0), (VNC, CORTEX)) == CORTEX
    assert factors((40.0, 8.0, 9.0), (VNC, CORTEX)) == (8 / 6, 9 / 6)
    assert factors((40.0, 2.3, 4.6), (VNC,)) == (0.5, 1.0)


def test_a_model_that_does_not_say_its_sizes_is_compared_with_nothing() -> None:
    assert mismatch((50.0, 4.6, 4.6), ()) is None
    assert mismatch(None, ()) is None
    with pytest.raises(UsageError, match="its description does not say; leave --rescale out"):
        factors((50.0, 4.6, 4.6), ())
