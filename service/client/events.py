"""What a stream of a job's events tells, whichever way its bytes arrive."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import httpx
from httpx_sse import ServerSentEvent
from pydantic import ValidationError

from emboundary.service.errors import RemoteError
from emboundary.service.jobs.schemas import Job

SECONDS_BETWEEN_TRIES = 2.0
# The service says something every 15 s; twice that in silence is a connection that has broken unnoticed.
SILENCE = httpx.Timeout(30.0, connect=10.0)
# Answers of a server, or of a proxy before it, through which no stream of events will ever come.
_NO_STREAM = (404, 405, 406, 501)


@dataclass
class Course:
    """A job as far as it has been followed.

    Attributes:
        job: as last heard of; None before.
        streams: whether the service may still be asked for a stream of events.
    """

    job: Job | None = None
    streams: bool = True

    @property
    def over(self) -> bool:
        """Whether nothing more will change."""
        return self.job is not None and self.job.over

    @property
    def headers(self) -> dict[str, str]:
        """What makes a stream go on where the last one broke."""
        return {} if self.job is None else {"Last-Event-ID": str(self.job.revision)}

    def opens(self, response: httpx.Response) -> bool:
        """Whether an answer is a stream of events; notes where there will be none."""
        if response.is_success and response.headers.get("Content-Type", "").startswith("text/event-stream"):
            return True
        self.streams = not (response.is_success or response.status_code in _NO_STREAM)
        return False

    def hear(self, event: ServerSentEvent) -> Iterator[Job]:
        """The job that an event carries, if it is news.

        Raises:
            RemoteError: the event carries something else.
        """
        if not event.data:  # a sign of life
            return
        try:
            job = Job.model_validate_json(event.data)
        except ValidationError as error:
            raise RemoteError(
                "an event of the job is not an emboundary service's; check that both run the same version"
            ) from error
        yield from self.take(job)

    def take(self, job: Job) -> Iterator[Job]:
        """A job, if it is news; its revision goes back where a server was killed before progress was on its disk."""
        if job != self.job:
            self.job = job
            yield job
