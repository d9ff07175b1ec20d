"""Carry out one job: the same run as ``emboundary predict``, behind all requests that wait for the device."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Protocol

from emboundary.service.engine import ModelEngine
from emboundary.service.errors import EmboundaryError
from emboundary.service.hosting import Models
from emboundary.service.jobs.following import Cancellable, Following, Interruption, told_result
from emboundary.service.jobs.record import Record
from emboundary.service.jobs.schemas import Job, JobModel
from emboundary.service.jobs.store import Entry
from emboundary.service.jobs.submission import Places, in_words_of_jobs
from emboundary.service.run.prediction import MapReport, make_map
from emboundary.service.run.predictor import LocalPredictor
from emboundary.service.security.jail import Jail
from emboundary.service.volumes.place import is_begun

_log = logging.getLogger(__name__)
_DEFECT = "the job failed through a defect of the service; its log says more"


class BackgroundModel(ModelEngine, Cancellable, Protocol):
    """A network whose calls wait behind those of requests, and can be made to end."""


Background = Callable[[str, ModelEngine], BackgroundModel]
"""Gives a job, by its id, its way to a network."""


class ModelChangedError(EmboundaryError):
    """The model that a job was submitted for is not served any more."""


def carry_out(
    entry: Entry,
    record: Record,
    interruption: Interruption,
    *,
    models: Models,
    jail: Jail,
    background: Background,
    redact: Callable[[str], str],
) -> dict[str, Any]:
    """Run a job to its end, and return the fields of its record that tell how it ended.

    Args:
        entry: the job.
        record: of it; kept up to date meanwhile.
        interruption: ends the run before.
        models: what is served.
        jail: where jobs may read and write today.
        background: gives the way to the network.
        redact: takes from a line what clients are not to see.
    """
    try:
        report = _map(entry, record, interruption, models, jail, background, redact)
    except Exception as error:
        if interruption.wanted:
            # Whatever a run that must end fails with, it fails because it must end.
            _log.info("job %s: %s", record.job.id, error)
            return _ended("cancelled") if record.job.cancel_requested else {"state": "queued", "result": None}
        return _ended("failed", error=redact(_explained(record.job, error)), result=None)
    result = told_result(report, record.job, redact)
    if not report.complete:
        return _ended("failed", error=redact(_incomplete(report, entry)), result=result)
    return _ended("succeeded", result=result)


def ended_unseen(entry: Entry) -> dict[str, Any] | None:
    """How a job ended whose server was killed after its OUTPUT had its name, and before that was kept; else None."""
    result = entry.job.result
    if result is None or not result.complete or is_begun(entry.target) or not entry.target.exists():
        return None
    return _ended("succeeded")


def _map(
    entry: Entry,
    record: Record,
    interruption: Interruption,
    models: Models,
    jail: Jail,
    background: Background,
    redact: Callable[[str], str],
) -> MapReport:
    job = record.job
    places = Places.of(jail, entry.source, str(entry.target), entry.mask)
    for source in (places.source, places.mask):
        if source is not None:
            jail.inspect(source)
    engine = background(job.id, _pinned(models, job.model))
    interruption.reaches(engine)
    following = Following(record, interruption, lambda line: redact(in_words_of_jobs(line)))
    request = places.request(job.request)
    return make_map(request, LocalPredictor(engine, job.request.tta), following, follower=following)


def _pinned(models: Models, wanted: JobModel) -> ModelEngine:
    """The model that the job was submitted for.

    Raises:
        ModelChangedError: it is gone, or another file has its place.
        ModelUnavailableError: its file is damaged.
        DeviceError: it does not run on the device.
    """
    try:
        served = models.find(wanted.name, wanted.version)
    except EmboundaryError as error:
        raise ModelChangedError(
            f"model {wanted.name}, version {wanted.version}, was served when the job was submitted, and is not any "
            f"more ({error}); load it again, or submit the job with another model"
        ) from error
    found = served.description.sha256
    if found != wanted.sha256:
        raise ModelChangedError(
            f"model {wanted.name}, version {wanted.version}, had sha256 {wanted.sha256[:12]}... when the job was "
            f"submitted, and has {str(found)[:12]}... now; put the file back, or submit the job again"
        )
    return served.engine()


def _ended(state: str, **fields: Any) -> dict[str, Any]:
    return {"state": state, "ended_at": datetime.now(UTC), **fields}


def _explained(job: Job, error: Exception) -> str:
    if isinstance(error, EmboundaryError):
        return in_words_of_jobs(str(error))
    if isinstance(error, MemoryError):
        return "the server ran out of memory; submit the job with a smaller tile"
    _log.error("job %s failed unexpectedly", job.id, exc_info=error)
    return _DEFECT


def _incomplete(report: MapReport, entry: Entry) -> str:
    first = report.missing[0]
    return (
        f"{len(report.missing)} blocks of {entry.target} are missing because the input cannot be read there (block "
        f"{first.box}: {first.reason}); mend the input and submit the same job, which then makes only these, or add "
        "fill_missing to do without them"
    )
