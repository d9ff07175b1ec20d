"""A job that runs elsewhere, shown as a run here is shown."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack

from emboundary.service.errors import RemoteError
from emboundary.service.jobs.schemas import Job, JobProgress
from emboundary.service.progress import Advance, Reporter


def show(course: Iterable[Job], reporter: Reporter) -> Job:
    """Report what becomes of a job; gives it as it is in the end."""
    shown: Job | None = None
    with _Bars(reporter) as bars:
        for job in course:
            runs_on = job.state == "running"
            if not runs_on:
                bars.close()
            if shown is None or job.state != shown.state:
                reporter.say(f"job {job.id} ({job.model.name} {job.model.version}): {job.state}")
            for line in job.warnings[len(shown.warnings) if shown is not None and shown.runs == job.runs else 0 :]:
                reporter.warn(line)
            if runs_on and job.progress is not None:
                bars.show(job.progress)
            shown = job
    if shown is None:
        raise RemoteError("the service told nothing about the job; check that both run the same version")
    return shown


def refuse_unfinished(job: Job) -> None:
    """End with exit code 1 where a job is over without its map.

    Raises:
        RemoteError: it failed or was cancelled.
    """
    if job.state == "failed":
        raise RemoteError(f"job {job.id} failed: {job.error}")
    if job.state == "cancelled":
        raise RemoteError(f"job {job.id} was cancelled; submitted again as it was, it goes on from what is stored")


class _Bars:
    """One bar for each phase of a job, the last one open."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._open = ExitStack()
        self._phase: str | None = None
        self._done = 0
        self._advance: Advance = lambda _: None

    def __enter__(self) -> _Bars:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the bar that is open, if there is one."""
        self._open.close()
        self._phase = None

    def show(self, progress: JobProgress) -> None:
        """Move the bar of the phase, or begin another."""
        # A server that was killed begins a phase again behind what it had told.
        if progress.phase != self._phase or progress.voxels_done < self._done:
            self.close()
            bar = self._reporter.bar(progress.phase, progress.voxels, None, progress.voxels_done)
            self._advance = self._open.enter_context(bar)
            self._phase, self._done = progress.phase, progress.voxels_done
        self._advance(progress.voxels_done - self._done)
        self._done = progress.voxels_done
