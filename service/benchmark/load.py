"""The service under load: clients that each send one image after another, against a service in a process of its own."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emboundary.service.benchmark.mapping import Source
from emboundary.service.benchmark.records import Limits, Round, Row
from emboundary.service.benchmark.subjects import Passes, Subject, padded_side
from emboundary.service.benchmark.watching import metered, repeated
from emboundary.service.client.asynchronous import AsyncBoundaryClient
from emboundary.service.client.retrying import Patience, RefusedError
from emboundary.service.demo.background import background_service
from emboundary.service.volumes import open_volume

_ONCE = Patience(attempts=1)


@dataclass(frozen=True)
class Load:
    """How a service is loaded.

    Attributes:
        clients: that send images at the same time.
        side: of the images, in pixels.
        seconds: after which no client sends another image.
    """

    clients: int
    side: int
    seconds: float


@dataclass
class _Seen:
    seconds: list[float] = field(default_factory=list)
    refused: int = 0


class ServiceCase:
    """One model behind a service that serves nothing else.

    Args:
        subject: the model; its engine is the bare session beside the service.
        passes: 8 averages rotations and flips.
        source: images are cut from its first section.
        load: how many, how large, for how long.
        opened: closes the service.
    """

    def __init__(self, subject: Subject, passes: Passes, source: Source, load: Load, opened: ExitStack) -> None:
        self._subject = subject
        self._passes: Passes = passes
        self._load = load
        self._opened = opened
        with open_volume(source.where, source.axes) as volume:
            _, y, x = (min(load.side, extent) for extent in volume.shape)
            self._image: NDArray[Any] = np.ascontiguousarray(volume[0:1, 0:y, 0:x][0])

    @property
    def title(self) -> str:
        """For people who wait."""
        eight = " + 8x" if self._passes == 8 else ""
        engine, clients = self._subject.engine, self._load.clients
        return f"{self._subject.name}{eight} {engine.precision}, a service and {clients} clients"

    @cached_property
    def _url(self) -> str:
        """Where the service is; it starts when this is first asked for."""
        engine, subject = self._subject.engine, self._subject
        return self._opened.enter_context(
            background_service(
                *("--model", subject.source, "--repository", str(subject.repository)),
                *("--device", engine.device, "--precision", engine.precision),
            )
        )

    @cached_property
    def _bare(self) -> Callable[[], None]:
        """The network alone on one such image."""
        y, x = (padded_side(self._subject.engine, extent) for extent in self._image.shape)
        return self._subject.engine.bare(1, y, x)

    def warm(self) -> None:
        """Start the service, and have it answer once."""
        asyncio.run(_ask(self._url, self._image, Load(1, self._load.side, 0.0), self._passes))
        self._bare()

    def measure(self, limits: Limits) -> Round:
        """Ask for so long, then run the network alone on such images for as long."""
        url, bare = self._url, self._bare
        with metered(self._subject.engine.device) as meter:
            began = time.perf_counter()
            seen = asyncio.run(_ask(url, self._image, self._load, self._passes))
            took = time.perf_counter() - began
        runs, alone = repeated(bare, min(self._load.seconds, took))
        answers = len(seen.seconds)
        each, network_pixels = alone / runs, np.prod([padded_side(self._subject.engine, n) for n in self._image.shape])
        ordered = sorted(seen.seconds)
        return Round(
            seconds=took,
            pixels=answers * self._image.size,
            limits=limits,
            bare_seconds=answers * self._passes * each,
            bare_rate=float(network_pixels) / each,
            device=None if meter is None else meter.mean_busy,
            p50=statistics.median(ordered),
            p99=ordered[min(answers - 1, int(0.99 * answers))],
            refused=seen.refused,
        )

    def row(self, rounds: tuple[Round, ...]) -> Row:
        """The case and its rounds."""
        described = self._subject.entry.description
        return Row(
            what="service",
            model=described.name,
            version=described.version,
            precision=self._subject.engine.precision,
            passes=self._passes,
            shape=self._image.shape,
            clients=self._load.clients,
            cost=self._subject.cost,
            rounds=rounds,
        )


async def _ask(url: str, image: NDArray[Any], load: Load, passes: Passes) -> _Seen:
    """Let all clients ask until the time is over, each at least once; the first failure is that of all."""
    seen, end = _Seen(), time.perf_counter() + load.seconds

    async def client(connection: AsyncBoundaryClient) -> None:
        answered = False
        while not answered or time.perf_counter() < end:
            began = time.perf_counter()
            try:
                await connection.predict(image, tta=passes == 8, dtype="uint8")
            except RefusedError as error:
                seen.refused += 1
                await asyncio.sleep(error.retry_after or 0.1)
            else:
                answered = True
                seen.seconds.append(time.perf_counter() - began)

    async with AsyncBoundaryClient.connect(url, patience=_ONCE) as connection:
        try:
            # of which none is left when the connection is closed, whatever happens to one of them
            async with asyncio.TaskGroup() as clients:
                for _ in range(load.clients):
                    clients.create_task(client(connection))
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
    return seen
