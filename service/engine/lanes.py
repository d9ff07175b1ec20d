"""Lanes side by side: on one GPU, so that copying and computing overlap; on several, so that all work."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from emboundary.service.engine.lane import Lane
from emboundary.service.engine.protocol import Answer, Images, Part
from emboundary.service.errors import DeviceError, first_line


class Lanes:
    """A network that runs as often at a time as it has lanes; whoever comes later waits.  A ``Mapper``.

    Args:
        make: opens all lanes; called again by ``reopen``.
        clock: in seconds, monotonic.
    """

    def __init__(self, make: Callable[[], list[Lane]], clock: Callable[[], float] = time.perf_counter) -> None:
        self._make = make
        self._clock = clock
        self._lanes = make()
        self._free: queue.LifoQueue[Lane] = queue.LifoQueue()
        self._lock = threading.Lock()
        self._gathering = threading.Lock()  # two that each had some of the lanes would wait for each other
        self._active = 0
        self._since = self._busy = 0.0
        self._fill()

    def __len__(self) -> int:
        """How many there are."""
        return len(self._lanes)

    @property
    def busy_seconds(self) -> float:
        """How long at least one lane has been at work, so far."""
        with self._lock:
            return self._busy + (self._clock() - self._since if self._active else 0.0)

    def reopen(self) -> None:
        """Begin anew, with all memory given back, when no lane is in use any more.

        Raises:
            DeviceError: the device no longer works.
        """
        with self._all():
            self._lanes.clear()
            self._lanes = self._make()

    def run(self, images: Images) -> Images:
        """Map (n, c, y, x), y and x multiples of the stride, to probabilities (n, K, y, x); see ``Engine``.

        Raises:
            DeviceError: the runtime failed, as it does when memory runs out.
        """
        part = Part(images, 0.0, 1.0, slice(None), slice(None))
        answer = self.map([part])[0].stored
        assert answer.dtype == np.float32
        return answer

    def map(self, parts: Sequence[Part], side: tuple[int, int] | None = None) -> list[Answer]:
        """The maps of parts that share a run of the network; see ``Mapper``.

        Raises:
            DeviceError: the runtime failed, as it does when memory runs out.
        """
        y, x = parts[0].voxels.shape[2:] if side is None else side
        with self._lane() as lane:
            try:
                return lane.map(parts, (y, x))
            except Exception as error:  # the runtime's exceptions share no narrower base
                n = sum(len(part.voxels) for part in parts)
                channels = parts[0].voxels.shape[1]
                raise failure(lane.place.device, (n, channels, y, x), error) from error

    def bare(self, n: int, y: int, x: int) -> Callable[[], None]:
        """A run of the network alone, on the first lane, on images that are on the device."""
        return self._lanes[0].bare(n, y, x)

    def warm(self, n: int, y: int, x: int) -> None:
        """Run images of a shape once on every lane, so that later ones find kernels and memory.

        Raises:
            DeviceError: the runtime failed, as it does when memory runs out.
        """
        with self._all():
            for lane in self._lanes:
                try:
                    lane.bare(n, y, x)()
                except Exception as error:  # the runtime's exceptions share no narrower base
                    raise failure(lane.place.device, (n, y, x), error) from error

    def _fill(self) -> None:
        for lane in reversed(self._lanes):  # the first one is the first to be taken
            self._free.put(lane)

    @contextmanager
    def _all(self) -> Iterator[None]:
        """Have all lanes for the length of the block; those that the block has opened instead are free behind it."""
        with self._gathering:
            for _ in range(len(self._lanes)):
                self._free.get()
            try:
                yield
            finally:
                self._fill()

    @contextmanager
    def _lane(self) -> Iterator[Lane]:
        lane = self._free.get()
        with self._lock:
            self._active += 1
            if self._active == 1:
                self._since = self._clock()
        try:
            yield lane
        finally:
            with self._lock:
                self._active -= 1
                if not self._active:
                    self._busy += self._clock() - self._since
            self._free.put(lane)


def failure(device: str, shape: tuple[int, ...], error: Exception) -> DeviceError:
    """The error of a run that the runtime could not do."""
    return DeviceError(
        f"{device} failed on images of shape {shape}: {first_line(error)}; if memory ran out, give a smaller --tile"
    )
