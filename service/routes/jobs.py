"""``/v1/jobs``: volumes that the service maps by itself, kept on disk until they are over."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import ValidationError

from emboundary.service.jobs.manager import JobManager
from emboundary.service.jobs.schemas import Job, JobList, JobQuery, JobSubmission
from emboundary.service.problems import responses
from emboundary.service.refusal import RequestError
from emboundary.service.state import state_of
from emboundary.service.visits.body import receive

router = APIRouter(prefix="/v1/jobs")

_BODY_BYTES = 1 << 16
# Volumes are opened when they are submitted, and a server that they lie on may be slow: so many at a time.
_SUBMISSIONS = 4
_SUBMISSIONS_WAITING = 16
_RECONNECT_AFTER_MS = 2000

Identifier = Annotated[str, Path(description="Of a job, as its submission was answered.", max_length=200)]
IdempotencyKey = Annotated[
    str | None,
    Header(
        description="Of your own making: the same key again gives the same job, not a second one.",
        min_length=1,
        max_length=200,
    ),
]


async def manager(request: Request) -> JobManager:
    """The jobs of the application that serves a request.

    Raises:
        RequestError: 404 where it has none.
    """
    jobs = state_of(request).jobs
    if jobs is None:
        raise RequestError(
            404, "this service runs no jobs: it was started without --data-root; send images to /v1/predict"
        )
    return jobs


Jobs = Annotated[JobManager, Depends(manager)]


async def submission(request: Request) -> JobSubmission:
    """The body of a submission, whose size is bounded before it is read.

    Raises:
        RequestError: 413, 415, 408, or 400 for a body that was cut short.
        RequestValidationError: no JSON, or fields that are unknown, missing or of the wrong type.
    """
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/json":
        raise RequestError(415, f"Content-Type is {media!r}; a job is submitted as application/json")
    timeout_s = state_of(request).settings.body_timeout_s
    body = await receive(request, _BODY_BYTES, timeout_s, f"at most {_BODY_BYTES} are accepted; a job needs far fewer")
    try:
        return JobSubmission.model_validate_json(body)
    except ValidationError as error:
        raise RequestValidationError([{**e, "loc": ("body", *e["loc"])} for e in error.errors()]) from error


_SUBMISSION: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": JobSubmission.model_json_schema()}},
    }
}


@router.post(
    "",
    status_code=202,
    summary="Submit a volume as a job",
    responses={
        202: {
            "description": "Accepted; `Location` is the job's address.",
            "headers": {"Location": {"description": "Address of the job.", "schema": {"type": "string"}}},
        },
        **responses(400, 401, 403, 404, 408, 409, 413, 415, 422, 429, 500, 503),
    },
    openapi_extra=_SUBMISSION,
)
async def submit(
    request: Request,
    response: Response,
    jobs: Jobs,
    submitted: Annotated[JobSubmission, Depends(submission)],
    idempotency_key: IdempotencyKey = None,
) -> Job:
    """Accept a job; all that is wrong with it and can be found without computing is refused now."""
    with _looked_at(request) as limiter:
        job = await to_thread.run_sync(
            lambda: jobs.submit(submitted, client=request.state.client, key=idempotency_key), limiter=limiter
        )
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return job


@router.get("", summary="Jobs, the newest first", responses=responses(401, 403, 404, 422, 503))
def page(jobs: Jobs, query: Annotated[JobQuery, Query()]) -> JobList:
    """One page of the history, in all states or in some."""
    return jobs.page(query.state, limit=query.limit, before=query.before)


@router.get("/{identifier}", summary="One job", responses=responses(401, 403, 404, 422, 503))
def job(jobs: Jobs, identifier: Identifier) -> Job:
    """A job as it is now."""
    return jobs.get(identifier)


@router.delete(
    "/{identifier}",
    summary="Cancel a job",
    responses={
        200: {"description": "Cancelled."},
        202: {"description": "It runs, and stops at its next piece.", "model": Job},
        **responses(401, 403, 404, 409, 422, 503),
    },
)
def cancel(jobs: Jobs, identifier: Identifier, response: Response) -> Job:
    """End a job; what it has stored is kept, and the same job submitted again goes on from there."""
    cancelled = jobs.cancel(identifier)
    response.status_code = 200 if cancelled.over else 202
    return cancelled


async def known(jobs: Jobs, identifier: Identifier) -> str:
    """The id of a job that exists: once a stream has begun, its status cannot be changed any more.

    Raises:
        RequestError: 404.
    """
    await to_thread.run_sync(jobs.get, identifier)
    return identifier


@router.get(
    "/{identifier}/events",
    summary="Follow a job",
    response_class=EventSourceResponse,
    responses={
        200: {
            "description": "`event: progress` with the job as JSON whenever it has changed, and `event: end` last. A "
            "stream that closes without `end` belongs to a service that is shutting down: reconnect.",
        },
        **responses(401, 403, 404, 422, 503),
    },
)
async def events(
    jobs: Jobs,
    identifier: Annotated[str, Depends(known)],
    last_event_id: Annotated[str | None, Header(description="Of the last event that was received.")] = None,
) -> AsyncIterator[ServerSentEvent]:
    """A job's whole record whenever it has changed, until the job is over; comments keep the connection alive."""
    after = int(last_event_id) if last_event_id is not None and last_event_id.isdecimal() else None
    async for changed in jobs.watch(identifier, after):
        yield ServerSentEvent(
            data=changed,
            event="end" if changed.over else "progress",
            id=str(changed.revision),
            retry=_RECONNECT_AFTER_MS,
        )


class _Submissions:
    """Submissions that are being looked at, of one application; belongs to its event loop."""

    def __init__(self) -> None:
        self.limiter = CapacityLimiter(_SUBMISSIONS)
        self.count = 0


@contextmanager
def _looked_at(request: Request) -> Iterator[CapacityLimiter]:
    """Let a submission in, behind those that came before.

    Raises:
        RequestError: 429 where there are too many.
    """
    state = request.app.state
    if not hasattr(state, "submissions"):
        state.submissions = _Submissions()
    submissions = state.submissions
    assert isinstance(submissions, _Submissions)
    if submissions.count >= _SUBMISSIONS + _SUBMISSIONS_WAITING:
        raise RequestError(
            429,
            f"{submissions.count} submissions are being looked at already; try again after the seconds that "
            "Retry-After names",
            headers={"Retry-After": "5"},
            reason="jobs",
        )
    submissions.count += 1
    try:
        yield submissions.limiter
    finally:
        submissions.count -= 1
