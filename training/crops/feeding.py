"""Batches that are made while the network learns from the one before."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def prefetched(make: Callable[[int], T], first: int, stop: int, *, workers: int) -> Iterator[T]:
    """Yield ``make(first), ..., make(stop - 1)`` in order, made by threads up to two per worker ahead.

    What a step is given does not depend on the threads, since ``make`` is a function of the step alone.  An error
    of ``make`` is raised where its step's turn comes.
    """
    with ThreadPoolExecutor(workers, thread_name_prefix="crops") as pool:
        ahead: deque[Future[T]] = deque()
        try:
            for step in range(first, stop):
                while len(ahead) < 2 * workers and step + len(ahead) < stop:
                    ahead.append(pool.submit(make, step + len(ahead)))
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()
