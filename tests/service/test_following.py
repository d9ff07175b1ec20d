"""How a job elsewhere is shown: one bar for each phase, and what happened between two looks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from emboundary.service.commands.following import refuse_unfinished, show
from emboundary.service.errors import RemoteError
from emboundary.service.jobs.schemas import Job, JobModel, JobProgress, JobSubmission
from emboundary.service.pace import Waits
from emboundary.service.progress import Advance


class Notes:
    """A reporter that writes down what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def warn(self, line: str) -> None:
        self.lines.append(f"warning: {line}")

    @contextmanager
    def bar(self, task: str, voxels: int, waits: Waits | None = None, done: int = 0) -> Iterator[Advance]:
        assert waits is None
        self.lines.append(f"{task} from {done} of {voxels}")
        yield lambda more: self.lines.append(f"{task} +{more}")
        self.lines.append(f"{task} ends")


def job(state: Any, phase: str = "", done: int = 0, **changes: Any) -> Job:
    progress = JobProgress(phase=phase, voxels=100, voxels_done=done, blocks=1, blocks_done=0) if phase else None
    facts: dict[str, Any] = {"id": "a1", "revision": 1, "client": "lab", "fingerprint": {}, "runs": 1, **changes}
    return Job(
        state=state,
        request=JobSubmission(input="in.tif", output="out.tif"),
        model=JobModel(name="d4", version="1", sha256="0"),
        created_at=datetime.now(UTC),
        progress=progress,
        **facts,
    )


def told(*course: Job) -> list[str]:
    notes = Notes()
    assert show(course, notes) is course[-1]
    return [line.removeprefix("job a1 (d4 1): ") for line in notes.lines]


def test_every_phase_has_a_bar_of_its_own() -> None:
    assert told(
        job("queued"),
        job("running"),
        job("running", "measuring", 0),
        job("running", "measuring", 60),
        job("running", "predicting", 10),
        job("running", "predicting", 30),
        job("succeeded", "predicting", 100),
    ) == [
        *("queued", "running", "measuring from 0 of 100", "measuring +0", "measuring +60", "measuring ends"),
        *("predicting from 10 of 100", "predicting +0", "predicting +20", "predicting ends", "succeeded"),
    ]


def test_a_server_that_was_killed_begins_the_bar_again() -> None:
    assert told(
        job("running", "predicting", 70),
        job("running", "predicting", 40, runs=2),
        job("running", "predicting", 45, runs=2),
        job("queued", "predicting", 45, runs=2),
        job("cancelled", "predicting", 45, runs=2),
    ) == [
        *("running", "predicting from 70 of 100", "predicting +0", "predicting ends"),
        *("predicting from 40 of 100", "predicting +0", "predicting +5", "predicting ends", "queued", "cancelled"),
    ]


def test_a_warning_is_said_once() -> None:
    assert told(
        job("running", warnings=("one",)),
        job("running", warnings=("one", "two")),
        job("queued", runs=1, warnings=("one", "two")),
        job("running", runs=2),
        job("running", runs=2, warnings=("one",)),
    ) == ["running", "warning: one", "warning: two", "queued", "running", "warning: one"]


def test_a_course_of_nothing_is_none() -> None:
    with pytest.raises(RemoteError, match="the service told nothing about the job"):
        show([], Notes())


def test_only_a_job_with_a_map_ends_well() -> None:
    refuse_unfinished(job("succeeded"))
    with pytest.raises(RemoteError, match="job a1 failed: no room"):
        refuse_unfinished(job("failed", error="no room"))
    with pytest.raises(RemoteError, match="job a1 was cancelled; submitted again as it was, it goes on"):
        refuse_unfinished(job("cancelled"))
