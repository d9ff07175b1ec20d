"""An engine that notes what its network is given, and when it runs."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeVar

from emboundary.service.engine import Answer, Images, Mapper, OnnxEngine, Part
from emboundary.service.gpus.meter import Meter

Shape = tuple[int, int, int]
T = TypeVar("T")


@dataclass
class Notes:
    """What was seen; written from several threads.

    Attributes:
        images: how often the network ran on n images (y, x), by (n, y, x).
        intervals: seconds at which each run began and ended.
    """

    images: Counter[Shape] = field(default_factory=Counter)
    intervals: list[tuple[float, float]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @contextmanager
    def run(self, shape: Shape) -> Iterator[None]:
        """One run of the network."""
        began = time.perf_counter()
        yield
        ended = time.perf_counter()
        with self._lock:
            self.images[shape] += 1
            self.intervals.append((began, ended))

    @property
    def busy_seconds(self) -> float:
        """How long at least one run was going on."""
        return covered(self.intervals)


def covered(intervals: Sequence[tuple[float, float]]) -> float:
    """Length of the union of intervals."""
    total, reached = 0.0, float("-inf")
    for began, ended in sorted(intervals):
        total += max(0.0, ended - max(began, reached))
        reached = max(reached, ended)
    return total


class Watched:
    """An engine in whose every other respect nothing changes.

    Args:
        engine: runs the network.
        notes: written as it runs.
    """

    def __init__(self, engine: OnnxEngine, notes: Notes) -> None:
        self._engine = engine
        self._notes = notes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def run(self, images: Images) -> Images:
        """See ``Engine``."""
        n, _, y, x = images.shape
        with self._notes.run((n, y, x)):
            return self._engine.run(images)

    @property
    def mapper(self) -> Mapper | None:
        """See ``OnnxEngine``."""
        mapper = self._engine.mapper
        return None if mapper is None else _WatchedMapper(mapper, self._notes)


@dataclass(frozen=True)
class _WatchedMapper:
    mapper: Mapper
    notes: Notes

    def map(self, parts: Sequence[Part], side: tuple[int, int] | None = None) -> list[Answer]:
        y, x = side or parts[0].voxels.shape[2:]
        with self.notes.run((sum(len(part.voxels) for part in parts), y, x)):
            return self.mapper.map(parts, side)


def metered(device: str) -> AbstractContextManager[Meter | None]:
    """Sample how busy the first GPU is, where that is what runs."""
    return Meter() if device == "cuda" else nullcontext()


def repeated(run: Callable[[], T], seconds: float) -> tuple[int, float]:
    """Run once, and again until so many seconds have gone; how often, and the seconds that it took."""
    began, runs = time.perf_counter(), 0
    while True:
        run()
        runs += 1
        took = time.perf_counter() - began
        if took >= seconds:
            return runs, took
