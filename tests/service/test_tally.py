from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emboundary.service.preparing.tally import Bins, Moments, Tally

FLOATS = st.floats(-1e250, 1e250).map(lambda value: value if abs(value) > 1e-50 else 0.0)


@settings(deadline=None)
@given(values=st.lists(FLOATS, min_size=1, max_size=40), parts=st.integers(1, 9))
def test_bins_do_not_depend_on_the_parts(values: list[float], parts: int) -> None:
    array = np.array(values)
    whole, cut = Moments(), Moments()
    whole.add(array)
    for part in np.array_split(array, parts):
        if part.size:
            cut.add(part)
    a, b = whole.summary(), cut.summary()
    assert a is not None
    assert b is not None
    assert a.bins == b.bins
    assert sum(a.bins.counts.values()) == len(values)


@settings(deadline=None)
@given(low=FLOATS, high=FLOATS)
def test_bins_are_the_narrowest_that_suffice(low: float, high: float) -> None:
    low, high = sorted((low, high))
    bins = Bins.between(low, high)
    narrower = Bins(bins.exponent - 1, {})
    ends = np.array([low, high])

    def span(candidate: Bins) -> int:
        candidate.add(ends[:1])
        candidate.add(ends[1:])
        return max(candidate.counts) - min(candidate.counts)

    assert span(bins) < 64
    if span(bins) > 0:
        assert span(narrower) >= 64 or bins.exponent == np.frexp(max(abs(low), abs(high)))[1] - 53


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_a_value_taken_in_many_times_is_that_many_values(dtype: str) -> None:
    array = np.arange(90).astype(dtype)
    told, shown = Tally.of(array.dtype), Tally.of(array.dtype)
    for tally in (told, shown):
        tally.add(array)
    told.add_repeated(3, 1000)
    shown.add(np.full(1000, 3, dtype))
    a, b = told.summary(), shown.summary()
    assert a is not None
    assert b is not None
    assert (a.count, a.low, a.high, a.bins) == (b.count, b.low, b.high, b.bins)
    assert (a.mean, a.std) == pytest.approx((b.mean, b.std), rel=1e-14)


@pytest.mark.parametrize("dtype", ["uint8", "float64"])
def test_nothing_has_no_statistics(dtype: str) -> None:
    assert Tally.of(np.dtype(dtype)).summary() is None


@pytest.mark.parametrize("dtype", ["uint32", "int32", "uint64", "int64"])
def test_wide_integers_take_no_table_of_all_their_values(dtype: str) -> None:
    values = np.array([3, 70_000, 5, 2**31 - 1], dtype)
    tracemalloc.start()
    tally = Tally.of(values.dtype)
    tally.add(values)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    summary = tally.summary()
    assert summary is not None
    assert (summary.mean, summary.std) == pytest.approx((values.mean(), values.std()))
    assert (summary.low, summary.high) == (3, 2**31 - 1)
    assert peak < 1 << 20
