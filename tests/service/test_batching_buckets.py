from __future__ import annotations

import numpy as np
import pytest

from emboundary.model.geometry import Footprint
from emboundary.service.batching.buckets import Buckets

FOOTPRINT = Footprint((0, 48, 48), (1, 8, 8))


def test_a_cpu_takes_every_shape_as_it_is() -> None:
    buckets = Buckets.for_device("cpu", FOOTPRINT, None)
    images = np.ones((2, 1, 104, 168), np.float32)
    assert buckets.pad(images) is images
    assert list(buckets.parts(7)) == [slice(0, 7)]


def test_a_gpu_sees_few_shapes_and_powers_of_two() -> None:
    buckets = Buckets.for_device("cuda", FOOTPRINT, None)
    shapes = {buckets.shape(y, x) for y in range(104, 992, 8) for x in range(104, 992, 8)}
    assert len(shapes) == len(buckets.sides) ** 2
    assert buckets.shape(896 + 96, 104) == (992, 64 + 96)
    assert [part.stop - part.start for part in buckets.parts(7)] == [4, 2, 1]
    assert [part.start for part in buckets.parts(7)] == [0, 4, 6]


def test_what_is_larger_than_all_stays_as_it_is() -> None:
    assert Buckets.for_device("cuda", FOOTPRINT, None).side(5000) == 5000


def test_sides_that_were_asked_for_become_multiples_of_the_stride() -> None:
    assert Buckets.for_device("cpu", FOOTPRINT, (300, 100)).sides == (104, 304)


@pytest.mark.parametrize("shape", [(1, 1, 8, 8), (3, 1, 9, 20)])
def test_padding_is_below_and_to_the_right(shape: tuple[int, ...]) -> None:
    images = np.ones(shape, np.float32)
    padded = Buckets((16, 24)).pad(images)
    assert padded.shape == (shape[0], 1, 16, 24 if shape[3] == 20 else 16)
    np.testing.assert_array_equal(padded[..., : shape[2], : shape[3]], images)
    assert padded.sum() == images.sum()
