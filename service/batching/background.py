"""A network as jobs see it: it runs when no request waits for the device."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from emboundary.model.description import ModelDescription, Precision
from emboundary.model.geometry import Footprint
from emboundary.service.batching.scheduler import Scheduler
from emboundary.service.batching.ticket import Ticket, Tile
from emboundary.service.engine import Answer, Images, Mapper, ModelEngine, Part
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
    def runtime(self) -> str:
        """What runs it, with its version."""
        return self.engine.runtime

    @property
    def lanes(self) -> int:
        """How many runs go side by side."""
        return self.engine.lanes

    def largest_tile(self) -> int | None:
        """Side of the largest tile that the device has memory for; None: any will do."""
        return self.engine.largest_tile()

    @property
    def footprint(self) -> Footprint:
        """Halo and stride of the network."""
        return self.engine.footprint

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the K output channels."""
        return self.engine.outputs

    @property
    def mapper(self) -> Mapper:
        """The same queue for stored voxels."""
        return self

    def run(self, images: Images) -> Images:
        """Map (n, c, y, x) to probabilities (n, K, y, x), when the device has time.

        Raises:
            InterruptedRunError: ``cancel`` was called.
            StoppedError: the service stops.
            DeviceError: the runtime failed.
        """
        part = Part(images, 0.0, 1.0, slice(None), slice(None))
        return np.ascontiguousarray(self.map([part])[0].stored)

    def map(self, parts: Sequence[Part], side: tuple[int, int] | None = None) -> list[Answer]:  # noqa: ARG002
        """The maps of parts, when the device has time; the queue pads them as it does with all others.

        Raises:
            InterruptedRunError: ``cancel`` was called.
            StoppedError: the service stops.
            DeviceError: the runtime failed.
        """
        done = threading.Event()
        outcome: list[BaseException | None] = []
        results: dict[int, Answer] = {}

        def end(error: BaseException | None) -> None:
            outcome.append(error)
            done.set()

        tiles = [
            Tile(
                self.engine,
                (len(part.voxels), *part.voxels.shape[2:]),
                lambda part=part: part,  # type: ignore[misc]
                lambda answer, number=number: results.update({number: answer}),  # type: ignore[misc]
            )
            for number, part in enumerate(parts)
        ]
        ticket = Ticket(self.job, tiles, job=True, on_end=end)
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
        return [results[number] for number in range(len(parts))]

    def cancel(self) -> None:
        """Make calls that wait, and all later ones, raise ``InterruptedRunError``."""
        with self._lock:
            self._cancelled = True
            tickets = list(self._tickets)
        for ticket in tickets:
            self.scheduler.cancel(ticket, _interrupted())


def _interrupted() -> InterruptedRunError:
    return InterruptedRunError("the job was interrupted")
