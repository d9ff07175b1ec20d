from __future__ import annotations

from emboundary.model.geometry import Footprint
from emboundary.service.batching.buckets import Buckets

FOOTPRINT = Footprint((0, 48, 48), (1, 8, 8))


def test_a_cpu_takes_every_shape_as_it_is() -> None:
    buckets = Buckets.for_device("cpu", FOOTPRINT, None)
    assert buckets.shape(104, 168) == (104, 168)
    assert not buckets.powers


def test_a_gpu_sees_few_shapes_and_powers_of_two() -> None:
    buckets = Buckets.for_device("cuda", FOOTPRINT, None)
    shapes = {buckets.shape(y, x) for y in range(104, 992, 8) for x in range(104, 992, 8)}
    assert len(shapes) == len(buckets.sides) ** 2
    assert buckets.shape(896 + 96, 104) == (992, 64 + 96)
    assert buckets.powers


def test_what_is_larger_than_all_stays_as_it_is() -> None:
    assert Buckets.for_device("cuda", FOOTPRINT, None).side(5000) == 5000


def test_sides_that_were_asked_for_become_multiples_of_the_stride() -> None:
    assert Buckets.for_device("cpu", FOOTPRINT, (300, 100)).sides == (104, 304)
