"""From a submission to a request: everything that can be refused before a job is accepted is refused here."""

from __future__ import annotations

import math
import re
from contextlib import ExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from emboundary.service.engine import ModelEngine
from emboundary.service.errors import OutputError, UsageError
from emboundary.service.jobs.following import told_fingerprint
from emboundary.service.jobs.schemas import Job, JobSubmission
from emboundary.service.jobs.store import JobStore
from emboundary.service.progress import QuietReporter
from emboundary.service.refusal import RequestError
from emboundary.service.run.plan import Plan
from emboundary.service.run.prediction import refuse_another_run
from emboundary.service.run.predictor import LocalPredictor
from emboundary.service.run.request import MapRequest, TypedRequest
from emboundary.service.security.jail import Jail
from emboundary.service.volumes.place import is_begun
from emboundary.service.volumes.recognition import is_map

_MOST_WAITING = 1000
# A few blocks exist at once; a run by itself holds them in a quarter of this, unless it is told otherwise.
_BLOCK_BYTES = 1 << 28


@dataclass(frozen=True)
class Places:
    """What a job reads and writes, resolved and inside.

    Attributes:
        source: INPUT, path or URL.
        target: OUTPUT.
        mask: path or URL, where there is one.
    """

    source: str
    target: Path
    mask: str | None

    @classmethod
    def of(cls, jail: Jail, source: str, target: str, mask: str | None) -> Places:
        """Resolve names that a client gave, or look again at what was resolved once.

        Raises:
            InputError: INPUT or the mask lies outside.
            UsageError: OUTPUT does.
        """
        return cls(jail.input(source), jail.output(target), None if mask is None else jail.input(mask))

    def request(self, submission: JobSubmission) -> MapRequest:
        """The run that a submission asks for.

        Raises:
            UsageError: an option that is malformed or out of range.
            RequestError: 409, it would replace something that is no map: who may submit jobs may not remove the
                volumes of others.
        """
        if submission.overwrite and self.target.exists() and not is_map(self.target):
            raise RequestError(
                409,
                f"overwrite is true, and what stands at output {str(self.target)!r} is no map of emboundary; nothing "
                "else is replaced: give another output",
                reason="output",
            )
        elsewhere: dict[str, Any] = {"source": self.source, "target": self.target, "mask": self.mask}
        typed = {f.name: getattr(submission, f.name) for f in fields(TypedRequest) if f.name not in elsewhere}
        return TypedRequest(**elsewhere, **typed).read()


def with_tile(submission: JobSubmission, largest: int) -> JobSubmission:
    """The submission with the service's own tile where it names none: a restart with other settings changes no run.

    Args:
        submission: what is asked for.
        largest: side in voxels of the tiles for which the service has memory.

    Raises:
        UsageError: a larger tile.
    """
    if submission.tile is None:
        return submission.model_copy(update={"tile": largest})
    if submission.tile > largest:
        raise UsageError(
            f"tile is {submission.tile}; this service has memory for tiles of {largest} (GET /v1/models): give no "
            "more, or leave it out"
        )
    return submission


def rehearse(submission: JobSubmission, places: Places, engine: ModelEngine) -> dict[str, Any]:
    """Do all that a run does before its first block, write nothing, and return the run's fingerprint as it is told.

    Raises:
        UsageError: options that are malformed, or fit neither each other nor INPUT.
        InputError: INPUT or the mask is missing, damaged, or no volume of grey values.
        OutputError: OUTPUT cannot stand where it was asked to.
        RequestError: 409, something else stands there.
    """
    muted = QuietReporter(Console(quiet=True))  # what there is to be warned of is said when the job runs
    try:
        with ExitStack() as opened:
            plan = Plan.prepare(places.request(submission), LocalPredictor(engine, submission.tta), muted, opened)
            _refuse_large_blocks(plan)
            refuse_another_run(plan, muted)
            return told_fingerprint(plan, submission)
    except OutputError as error:
        if places.target.exists() or is_begun(places.target):
            raise RequestError(409, in_words_of_jobs(str(error)), reason="output") from error
        raise


def _refuse_large_blocks(plan: Plan) -> None:
    """Refuse chunks or shards of which a few do not fit into memory beside all else: they are stored whole.

    Raises:
        UsageError: says which.
    """
    size = math.prod(plan.tiling.block) * np.dtype(plan.request.dtype).itemsize
    if size > _BLOCK_BYTES:
        raise UsageError(
            f"chunk, or shard, makes blocks of shape (z, y, x) = {plan.tiling.block}, of {size} bytes each; a service "
            f"holds blocks of {_BLOCK_BYTES} bytes at most: give smaller ones"
        )


def refuse_if_full(store: JobStore) -> None:
    """Refuse a job where very many wait already.

    Raises:
        RequestError: 429.
    """
    waiting = store.counts().get("queued", 0)
    if waiting >= _MOST_WAITING:
        raise RequestError(
            429,
            f"{waiting} jobs wait, at most {_MOST_WAITING} may; submit it again when some of them are over",
            headers={"Retry-After": "60"},
            reason="jobs",
        )


def refuse_taken(store: JobStore, target: Path) -> None:
    """Refuse an OUTPUT that another job is to write.

    Raises:
        RequestError: 409.
    """
    for other in store.unfinished():
        if other.target == target:
            raise RequestError(
                409,
                f"output is that of job {other.job.id}, which is {other.job.state}; wait for it, cancel it, or give "
                "another output",
                reason="output",
            )


def refuse_another(job: Job, submission: JobSubmission, key: str) -> None:
    """Refuse a submission under a key that was used for one which asks for something else.

    Raises:
        RequestError: 422.
    """
    if job.request != submission:
        raise RequestError(
            422,
            f"Idempotency-Key {key!r} has been used for job {job.id}, which asks for something else; give each job a "
            "key of its own",
        )


def in_words_of_jobs(line: str) -> str:
    """A line that speaks to whoever gives commands, for those who submit jobs: options are fields there."""
    line = re.sub(r"--([a-z]+(?:-[a-z]+)*)", lambda option: option[1].replace("-", "_"), line)
    return line.replace("the same command", "the same job").replace("the same arguments", "the same options")
