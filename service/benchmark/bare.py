"""The bare session: the network alone, on images that are on the device already."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

from emboundary.service.benchmark.records import Limits, Round, Row
from emboundary.service.benchmark.subjects import Subject, padded_side
from emboundary.service.benchmark.watching import repeated


class SessionCase:
    """One shape of images.

    Args:
        subject: the model.
        tile: side of the images before the halo.
        batch: images a run.
        seconds: that a round goes on for at least.
    """

    def __init__(self, subject: Subject, tile: int, batch: int, seconds: float) -> None:
        self._subject = subject
        self._tile = tile
        self._side = padded_side(subject.engine, tile)
        self._batch = batch
        self._seconds = seconds

    @property
    def title(self) -> str:
        """For people who wait."""
        return f"{self._subject.name} {self._subject.engine.precision}, {self._batch} x {self._side} x {self._side}"

    @cached_property
    def _run(self) -> Callable[[], None]:
        return self._subject.engine.bare(self._batch, self._side, self._side)

    def warm(self) -> None:
        """Run once."""
        self._run()

    def measure(self, limits: Limits) -> Round:
        """Run until the time is over."""
        runs, took = repeated(self._run, self._seconds)
        pixels = runs * self._batch * self._side**2
        return Round(seconds=took, pixels=pixels, limits=limits, network=1.0)

    def row(self, rounds: tuple[Round, ...]) -> Row:
        """The case and its rounds."""
        described = self._subject.entry.description
        return Row(
            what="session",
            model=described.name,
            version=described.version,
            precision=self._subject.engine.precision,
            passes=1,
            shape=(self._batch, described.footprint.channels, self._side, self._side),
            tile=self._tile,
            cost=self._subject.cost,
            rounds=rounds,
        )
