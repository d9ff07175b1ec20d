"""Keep a job's record up to date with its run, and end the run when it shall stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from emboundary.service.errors import InterruptedRunError
from emboundary.service.jobs.record import Record
from emboundary.service.jobs.schemas import Job, JobProgress, JobResult, JobSubmission, MissingBlock
from emboundary.service.pace import Pace, Waits
from emboundary.service.progress import Advance
from emboundary.service.run.plan import Plan
from emboundary.service.run.prediction import MapReport

_SECONDS_BETWEEN_NOTES = 0.5
_WARNINGS = 100
_LISTED_BLOCKS = 100


class Cancellable(Protocol):
    """An engine whose calls can be made to end."""

    def cancel(self) -> None:
        """Make calls that wait, and all later ones, raise ``InterruptedRunError``."""
        ...


class Interruption:
    """How a run is told to end, from any thread, whatever it waits for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._engine: Cancellable | None = None
        self.wanted = False

    def reaches(self, engine: Cancellable) -> None:
        """Tell the run's engine, too, whether now or later."""
        with self._lock:
            self._engine = engine
            wanted = self.wanted
        if wanted:
            engine.cancel()

    def want(self) -> None:
        """End the run; what it has stored is kept."""
        with self._lock:
            self.wanted = True
            engine = self._engine
        if engine is not None:
            engine.cancel()


@dataclass
class _Task:
    """What a run is doing; see ``Pace``."""

    name: str
    voxels: int
    before: int
    began: float
    new: int = 0


class Following:
    """The reporter and the follower of one job's run.

    Args:
        record: of the job.
        interruption: ends the run at its next piece.
        redact: takes from a line what clients are not to see.
        clock: seconds from any origin; replaced in tests.
    """

    def __init__(
        self,
        record: Record,
        interruption: Interruption,
        redact: Callable[[str], str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._record = record
        self._interruption = interruption
        self._redact = redact
        self._clock = clock
        self._lock = threading.Lock()
        self._task: _Task | None = None
        self._blocks = self._blocks_done = 0
        self._noted = clock()

    def say(self, line: str) -> None:
        """Nothing: the record's fields tell more."""

    def warn(self, line: str) -> None:
        """Keep a line that should be known before the result is trusted."""
        warnings = self._record.job.warnings
        if len(warnings) < _WARNINGS:
            self._record.note(warnings=(*warnings, self._redact(line)))

    @contextmanager
    def bar(self, task: str, voxels: int, waits: Waits | None = None, done: int = 0) -> Iterator[Advance]:  # noqa: ARG002
        """Follow a task.

        Raises:
            InterruptedRunError: from ``advance``, once the run shall end.
        """
        with self._lock:
            self._task = _Task(task, voxels, done, self._clock())
            self._note()
        try:
            self._advance(0)
            yield self._advance
        finally:
            with self._lock:
                self._note()
                self._task = None

    def _advance(self, more: int) -> None:
        if self._interruption.wanted:
            raise InterruptedRunError("the job was interrupted")
        with self._lock:
            assert self._task is not None  # a task's threads end before it does
            self._task.new += more
            self._note_if_due()

    def _note_if_due(self) -> None:
        if self._clock() - self._noted >= _SECONDS_BETWEEN_NOTES:
            self._note()

    def _note(self) -> None:
        task = self._task
        assert task is not None
        self._noted = self._clock()
        pace = Pace(task.voxels, task.before, task.new, self._noted - task.began)
        self._record.note(
            progress=JobProgress(
                phase=task.name,
                voxels=task.voxels,
                voxels_done=task.before + task.new,
                blocks=self._blocks,
                blocks_done=self._blocks_done,
                voxels_per_second=pace.voxels_per_second,
                seconds_left=pace.seconds_left,
            )
        )

    def planned(self, plan: Plan) -> None:
        """Keep what decides about the output's bytes."""
        self._blocks = len(plan.tiling.grid)
        self._record.change(fingerprint=told_fingerprint(plan, self._record.job.request))

    def stored(self, blocks: int) -> None:
        """Tell how many blocks are safe, now or with the next note."""
        with self._lock:
            self._blocks_done = blocks
            if self._task is not None:
                self._note_if_due()

    def finished(self, report: MapReport) -> None:
        """Keep the result before the output has its name: a server that is killed right after knows how it ended."""
        self._record.change(result=told_result(report, self._record.job, self._redact))


def told_fingerprint(plan: Plan, request: JobSubmission) -> dict[str, Any]:
    """A plan's fingerprint with places as they were submitted: where a data root lies is the server's own affair."""
    told = dict(plan.fingerprint)
    told["input"] = told["input"] | {"where": request.input}
    if told["mask"] is not None:
        told["mask"] = told["mask"] | {"where": request.mask}
    return told


def told_result(report: MapReport, job: Job, redact: Callable[[str], str]) -> JobResult:
    """What a run did, as it is answered; ``redact`` takes from a line what clients are not to see."""
    return JobResult(
        voxels=report.voxels,
        seconds=report.seconds,
        voxels_per_second=report.voxels_per_second if report.seconds else 0.0,
        device=job.fingerprint["device"],
        precision=job.fingerprint["precision"],
        blocks_done=report.blocks_done,
        blocks_skipped=report.blocks_skipped,
        blocks_resumed=report.blocks_resumed,
        blocks_constant=report.blocks_constant,
        blocks_missing=len(report.missing),
        missing=tuple(MissingBlock(box=str(m.box), reason=redact(m.reason)) for m in report.missing[:_LISTED_BLOCKS]),
        complete=report.complete,
        intensity=(report.intensity.mean, report.intensity.std),
    )
