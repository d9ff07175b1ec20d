"""A network as jobs see it: it runs when no request waits for the device."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import numpy as np

from emboundary.model.description import ModelDescription, Precision
from emboundary.model.geometry import Footprint
from emboundary.service.batching.scheduler import Scheduler
from emboundary.service.batching.ticket import Ticket, Tile
from emboundary.service.engine import Images, ModelEngine
from emboundary.service.errors import InterruptedRunError


@dataclass(eq=False)
class BackgroundEngine:
    """An engine whose calls wait behind all tiles of requests; safe to use from several threads.

    Attributes:
        job: whose calls these are: jobs get equal shares.
        engine: the network.
        scheduler: in front of the device.
    """

    job: str
    engine: ModelEngine
    scheduler: Scheduler
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _tickets: set[Ticket] = field(default_factory=set, repr=False)
    _cancelled: bool = False

    @property
    def description(self) -> ModelDescription:
        """What the model file promises."""
        return self.engine.description

    @property
    def device(self) -> str:
        """``cpu`` or ``cuda``."""
        return self.engine.device

    @property
    def precision(self) -> Precision:
        """The arithmetic."""
        return self.engine.precision

    @property
    def footprint(self) -> Footprint:
        """Halo and stride of the network."""
        return self.engine.footprint

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the K output channels."""
        return self.engine.outputs

    def run(self, images: Images) -> Images:
        """Map (n, c, y, x) to probabilities (n, K, y, x), when the device has time.

        Raises:
            InterruptedRunError: ``cancel`` was called.
            StoppedError: the service stops.
            DeviceError: the runtime failed.
        """
        done = threading.Event()
        outcome: list[BaseException | None] = []
        result: list[Images] = []

        def end(error: BaseException | None) -> None:
            outcome.append(error)
            done.set()

        n, _, y, x = images.shape
        tile = Tile(self.engine, (n, y, x), lambda: images, result.append)
        ticket = Ticket(self.job, [tile], job=True, on_end=end)
        with self._lock:
            if self._cancelled:
                raise _interrupted()
            self._tickets.add(ticket)
        try:
            self.scheduler.submit(ticket)
            done.wait()
        finally:
            with self._lock:
                self._tickets.discard(ticket)
        if outcome[0] is not None:
            raise outcome[0]
        return np.ascontiguousarray(result[0])

    def cancel(self) -> None:
        """Make calls that wait, and all later ones, raise ``InterruptedRunError``."""
        with self._lock:
            self._cancelled = True
            tickets = list(self._tickets)
        for ticket in tickets:
            self.scheduler.cancel(ticket, _interrupted())


def _interrupted() -> InterruptedRunError:
    return InterruptedRunError("the job was interrupted")
