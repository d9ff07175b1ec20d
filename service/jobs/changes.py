"""Wake those who follow a job when it changes: jobs change in threads, their followers wait in event loops."""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Changes:
    """Who waits for which job; safe to use from every thread and loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: defaultdict[str, set[tuple[asyncio.AbstractEventLoop, asyncio.Event]]] = defaultdict(set)

    def __len__(self) -> int:
        """How many wait."""
        with self._lock:
            return sum(map(len, self._waiting.values()))

    @contextmanager
    def of(self, identifier: str) -> Iterator[asyncio.Event]:
        """An event of the running loop that is set whenever that job has changed, until the block's end."""
        waiter = (asyncio.get_running_loop(), asyncio.Event())
        with self._lock:
            self._waiting[identifier].add(waiter)
        try:
            yield waiter[1]
        finally:
            with self._lock:
                self._waiting[identifier].discard(waiter)
                if not self._waiting[identifier]:
                    del self._waiting[identifier]

    def tell(self, identifier: str) -> None:
        """Wake those who wait for a job."""
        with self._lock:
            waiters = list(self._waiting.get(identifier, ()))
        _wake(waiters)

    def tell_all(self) -> None:
        """Wake everybody."""
        with self._lock:
            waiters = [waiter for waiters in self._waiting.values() for waiter in waiters]
        _wake(waiters)


def _wake(waiters: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]]) -> None:
    for loop, event in waiters:
        with suppress(RuntimeError):  # a loop that is closed has nobody left to wake
            loop.call_soon_threadsafe(event.set)
