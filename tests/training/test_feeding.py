from __future__ import annotations

import threading
import time

import pytest

from emboundary.training.crops.feeding import prefetched


@pytest.mark.parametrize("workers", [1, 3])
def test_steps_come_in_order_whoever_makes_them(workers: int) -> None:
    def make(step: int) -> int:
        time.sleep(0.002 * (step % 3))
        return step * step

    assert list(prefetched(make, 3, 20, workers=workers)) == [step * step for step in range(3, 20)]


def test_nothing_is_made_behind_the_last_step_or_far_ahead() -> None:
    made: list[int] = []
    for step in prefetched(lambda k: made.append(k) or k, 0, 10, workers=1):  # type: ignore[func-returns-value]
        assert len(made) <= step + 3
    assert made == list(range(10))
    assert list(prefetched(lambda k: k, 5, 5, workers=2)) == []


def test_the_next_batch_is_made_while_this_one_is_used() -> None:
    second = threading.Event()
    batches = prefetched(lambda k: second.set() if k == 1 else None, 0, 2, workers=1)
    next(batches)
    assert second.wait(5), "made without being asked for"
    batches.close()


def test_an_error_comes_up_at_its_step_and_ends_the_threads() -> None:
    def make(step: int) -> int:
        if step == 2:
            raise KeyError("two")
        return step

    batches = prefetched(make, 0, 9, workers=2)
    assert [next(batches), next(batches)] == [0, 1]
    with pytest.raises(KeyError, match="two"):
        next(batches)
    assert not any(thread.name.startswith("crops") for thread in threading.enumerate())
