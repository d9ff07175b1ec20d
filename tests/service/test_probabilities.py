import numpy as np
import pytest

from emboundary.service.probabilities import Dtype, from_stored, to_stored


def test_probabilities_are_rounded_to_levels_not_cut() -> None:
    values = np.array([0.0, 0.4999 / 255, 0.5001 / 255, 254.6 / 255, 1.0], np.float32)
    assert to_stored(values, "uint8").tolist() == [0, 0, 1, 255, 255]


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
def test_what_is_stored_again_stays_as_it_is(dtype: Dtype) -> None:
    levels = np.linspace(0, 1, 256, dtype=np.float32)
    stored = to_stored(levels, dtype)
    assert stored.dtype == dtype
    np.testing.assert_array_equal(to_stored(from_stored(stored), dtype), stored)
