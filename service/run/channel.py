"""A bounded queue between two stages of a pipeline that can be closed or abandoned from either end."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from threading import Condition
from typing import Generic, TypeVar

T = TypeVar("T")


class ClosedError(Exception):
    """The channel takes, or gives, nothing any more."""


class Channel(Generic[T]):
    """First in, first out; ``put`` waits while it is full, ``get`` while it is empty.

    Attributes:
        capacity: items that it holds at most.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._items: deque[T] = deque()
        self._changed = Condition()
        self._closed = False

    def put(self, item: T) -> None:
        """Hand an item over.

        Raises:
            ClosedError: the channel was closed or abandoned.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._items) < self.capacity)
            if self._closed:
                raise ClosedError
            self._items.append(item)
            self._changed.notify_all()

    def get(self) -> T:
        """Take the oldest item.

        Raises:
            ClosedError: the channel is closed and empty.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._items)
            if not self._items:
                raise ClosedError
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def drain(self) -> list[T]:
        """Take all that is there, without waiting."""
        with self._changed:
            items = list(self._items)
            self._items.clear()
            self._changed.notify_all()
            return items

    def close(self) -> None:
        """Nothing more will be put; what is there can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def abandon(self) -> None:
        """Close, and drop what is there."""
        self.close()
        self.drain()

    def __iter__(self) -> Iterator[T]:
        """Items until the channel is closed and empty."""
        while True:
            try:
                yield self.get()
            except ClosedError:
                return
