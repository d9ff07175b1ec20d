"""What the service counts and measures, for Prometheus: in a registry of its own, nothing global.

Routes are counted by their templates and refusals by words from the code: what a client sends never makes a new series.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

# Seconds over which the share of busy time is taken: a few scrapes long, so that one batch does not fill it.
WINDOW_S = 60.0

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_REQUEST_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_WAIT_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_TILES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """All series of one service; safe to call from any thread."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self._requests = Counter(
            "emboundary_requests", "Requests answered.", ("method", "route", "status"), registry=registry
        )
        self._request_s = Histogram(
            "emboundary_request_seconds",
            "From a request's head to the end of its answer.",
            ("route",),
            buckets=_REQUEST_S,
            registry=registry,
        )
        self._in_progress = Gauge(
            "emboundary_requests_in_progress", "Requests that have begun and are not answered.", registry=registry
        )
        self._refusals = Counter(
            "emboundary_refusals", "Requests answered 4xx or 5xx, by reason.", ("reason",), registry=registry
        )
        self._wait_s = Histogram(
            "emboundary_tile_wait_seconds",
            "From the queue to the network, for each tile.",
            ("kind",),
            buckets=_WAIT_S,
            registry=registry,
        )
        self._batch_tiles = Histogram(
            "emboundary_batch_tiles",
            "Tiles that shared one run of a network.",
            ("model", "kind"),
            buckets=_TILES,
            registry=registry,
        )
        self._compute_s = Histogram(
            "emboundary_compute_seconds",
            "One run of a network.",
            ("model", "kind"),
            buckets=_WAIT_S,
            registry=registry,
        )
        self._voxels = Counter(
            "emboundary_voxels",
            "Voxels that networks have seen, halos and padding included.",
            ("model", "kind"),
            registry=registry,
        )
        self._busy = Counter("emboundary_device_busy_seconds", "Time in which a network ran.", registry=registry)
        self._share = _BusyShare()
        Gauge(
            "emboundary_device_busy_share",
            f"Share of the last {WINDOW_S:g} s in which a network ran.",
            registry=registry,
        ).set_function(self._share)
        Gauge("emboundary_info", "1, for the version of the service.", ("version",), registry=registry).labels(
            version("emboundary")
        ).set(1)

    # What the scheduler tells (batching.observer.Observer).

    def waited(self, seconds: float, *, job: bool) -> None:
        """Note how long one tile waited between the queue and the network."""
        self._wait_s.labels(_kind(job)).observe(seconds)

    def ran(self, model: str, *, tiles: int, voxels: int, seconds: float, busy: float, job: bool) -> None:
        """Note one run of a network."""
        kind = _kind(job)
        self._batch_tiles.labels(model, kind).observe(tiles)
        self._compute_s.labels(model, kind).observe(seconds)
        self._voxels.labels(model, kind).inc(voxels)
        self._busy.inc(busy)
        self._share.add(busy)

    # What the edge tells.

    @contextmanager
    def in_progress(self) -> Iterator[None]:
        """Count one request as begun for the length of the block."""
        with self._in_progress.track_inprogress():
            yield

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answer.

        Args:
            method: as it was asked for; what HTTP does not know is counted as ``other``.
            route: the template of the path, e.g. ``/v1/models/{name}``, never the path itself.
            status: of the answer.
            seconds: from the request's head to the end of the answer.
        """
        self._requests.labels(method if method in _METHODS else "other", route, str(status)).inc()
        self._request_s.labels(route).observe(seconds)

    def refused(self, reason: str) -> None:
        """Count a refusal under a word from the code."""
        self._refusals.labels(reason).inc()

    # What is looked up when somebody asks.

    def watch_queue(self, tiles: Callable[[], int], size: Callable[[], int]) -> None:
        """Show the tiles that wait for the device, and the bytes of all requests in memory.  Call once."""
        for name, text, current in (
            ("emboundary_queue_tiles", "Tiles that wait for the device.", tiles),
            ("emboundary_queue_bytes", "Bodies, images and answers in memory, in bytes.", size),
        ):
            Gauge(name, text, registry=self.registry).set_function(current)

    def watch_ready(self, ready: Callable[[], bool]) -> None:
        """Show whether the service takes work.  Call once."""
        Gauge("emboundary_ready", "1 where the service takes work.", registry=self.registry).set_function(ready)

    def watch_jobs(self, count: Callable[[], Mapping[str, int]]) -> None:
        """Show how many jobs there are in each state.  Call once."""
        self.registry.register(_Jobs(count))

    def exposition(self, accept: str = "") -> tuple[bytes, str]:
        """Everything in the format that ``Accept`` asks for, Prometheus or OpenMetrics, and its content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type


class _BusyShare:
    """Share of the last ``WINDOW_S`` seconds that was covered by what has been added."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: deque[tuple[float, float]] = deque()  # (end, length), both in seconds
        self._total = 0.0

    def add(self, seconds: float) -> None:
        with self._lock:
            now = time.monotonic()
            self._runs.append((now, seconds))
            self._total += seconds
            self._forget(now)

    def __call__(self) -> float:
        with self._lock:
            now = time.monotonic()
            self._forget(now)
            # The oldest run may have begun before the window did.
            early = max(0.0, now - WINDOW_S - (self._runs[0][0] - self._runs[0][1])) if self._runs else 0.0
            return min(1.0, max(0.0, self._total - early) / WINDOW_S)

    def _forget(self, now: float) -> None:
        while self._runs and self._runs[0][0] < now - WINDOW_S:
            self._total -= self._runs.popleft()[1]
        if not self._runs:
            self._total = 0.0  # sums of floats drift over months


class _Jobs(Collector):
    def __init__(self, count: Callable[[], Mapping[str, int]]) -> None:
        self._count = count

    def describe(self) -> Iterable[GaugeMetricFamily]:
        yield GaugeMetricFamily("emboundary_jobs", "Jobs in each state.", labels=("state",))

    def collect(self) -> Iterable[GaugeMetricFamily]:
        (family,) = self.describe()
        for state, number in self._count().items():
            family.add_metric((state,), number)
        yield family


def _kind(job: bool) -> str:
    return "job" if job else "online"
