"""``BoundaryClient``: the service's calls as methods, with retries where trying again can help."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self, TypeVar

import httpx
import httpx_sse
import stamina

from emboundary.service.client import calls, events
from emboundary.service.client.address import Address
from emboundary.service.client.calls import Answer, Call, Image
from emboundary.service.client.retrying import (
    PATIENT,
    Patience,
    Persistence,
    RefusedError,
    UnreachableError,
    seconds_to_wait,
)
from emboundary.service.jobs.schemas import Job, JobList, JobState, JobSubmission
from emboundary.service.preparing.intensity import Intensity
from emboundary.service.probabilities import Dtype
from emboundary.service.schemas import Health, ModelList, ModelReply

T = TypeVar("T")


class BoundaryClient:
    """A connection to one service; safe to use from several threads, and a context manager.

    Args:
        http: the HTTP client, with the service's URL as its base and its key in the headers.
        patience: how long requests go on while the service is busy or out of reach.
    """

    def __init__(self, http: httpx.Client, patience: Patience = PATIENT) -> None:
        self._http = http
        self._patience = patience

    @classmethod
    def connect(
        cls, url: str, *, api_key: str | None = None, timeout_s: float = 600.0, patience: Patience = PATIENT
    ) -> Self:
        """A client of the service at ``url``; nothing is sent yet.

        Args:
            url: scheme, host and port, for example ``http://127.0.0.1:8000``.
            api_key: as the service's operator gave it; None: the one in ``EMBOUNDARY_API_KEY``, if there is one.
            timeout_s: longest silence while an answer is awaited.
            patience: how long requests go on while the service is busy or out of reach.

        Raises:
            RemoteError: a URL that is none.
        """
        address = Address.of(url, api_key, timeout_s)
        return cls(httpx.Client(base_url=address.url, headers=address.headers, timeout=address.timeout), patience)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Where the service is."""
        return str(self._http.base_url)

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def health(self) -> Health:
        """The default model and its device, of a service that can predict.

        Raises:
            RemoteError: a service that cannot be reached, or (RefusedError, 503) is not ready or shutting down.
        """
        return self._call(calls.health())

    def models(self) -> ModelList:
        """What the service serves, and the limits in force.

        Raises:
            RemoteError: a service that cannot be reached, or an answer that is not this service's.
        """
        return self._call(calls.models())

    def model(self, name: str | None = None, version: str | None = None) -> ModelReply:
        """One model's description and limits: the default model's where no name is given, of its newest version.

        Raises:
            RemoteError: as above, or a name or version that is not served.
        """
        if version is None:
            return calls.choose(self.models(), name, self.url)
        return self._call(calls.model(self.models().default if name is None else name, version))

    def predict(
        self,
        image: Image,
        *,
        model: str | None = None,
        version: str | None = None,
        tta: bool = False,
        dtype: Dtype = "float32",
        intensity: Intensity | None = None,
        deadline_s: float | None = None,
    ) -> Answer:
        """Boundary probabilities of one section (y, x) or stack (z, y, x), in the same shape.

        Args:
            image: grey values, or the path of a .npy, .tif or .png file, which is sent as it is.
            model: a served name; the service's default one where missing.
            version: of that model; the newest where missing.
            tta: whether the service averages the 8 rotations and flips.
            dtype: of the answer.
            intensity: statistics to normalise by; the image's own where missing.
            deadline_s: seconds within which an answer is of use; the service's own limit where missing.

        Raises:
            RemoteError: the service refused (RefusedError), stayed busy, or stayed out of reach.
            InputError: a file that cannot be read.
            UsageError: a file of another type, or an array of other dimensions.
        """
        return self._call(
            calls.predict(
                image, model=model, version=version, tta=tta, dtype=dtype, intensity=intensity, deadline_s=deadline_s
            )
        )

    def submit(self, submission: JobSubmission) -> Job:
        """Have a volume mapped that the service can see; gives the job as it begins.

        Raises:
            RemoteError: the service refused it and said why (RefusedError), or cannot be reached.
        """
        return self._call(calls.submit(submission))

    def jobs(self, *, states: Sequence[JobState] = (), limit: int = 100, before: str | None = None) -> JobList:
        """A page of jobs, the newest first; its ``next`` is the ``before`` of the next page.

        Raises:
            RemoteError: the service refused, or cannot be reached.
        """
        return self._call(calls.jobs(states, limit, before))

    def job(self, identity: str) -> Job:
        """One job as it is now.

        Raises:
            RemoteError: there is no such job (RefusedError, 404), or the service cannot be reached.
        """
        return self._call(calls.job(identity))

    def cancel(self, identity: str) -> Job:
        """Ask a job to stop, which it does at its next piece; gives the job as it is then.

        Raises:
            RemoteError: there is no such job, it is over (RefusedError, 409), or the service cannot be reached.
        """
        return self._call(calls.cancel(identity))

    def follow(self, identity: str) -> Iterator[Job]:
        """A job as it is now, then each time that it has changed, up to the one that is over.

        A connection that breaks is made again, for as long as patience lasts; where no stream of events comes
        through, the service is asked now and then.

        Raises:
            RemoteError: there is no such job, or the service stayed out of reach.
        """
        course = events.Course()
        while not course.over:
            if course.streams:
                yield from self._stream(identity, course)
            if not course.over:
                yield from course.take(self._call(calls.job(identity, Persistence.ALWAYS)))
            if not course.over:
                time.sleep(events.SECONDS_BETWEEN_TRIES)

    def _stream(self, identity: str, course: events.Course) -> Iterator[Job]:
        """What one stream of events tells, until it breaks."""
        try:
            with httpx_sse.connect_sse(
                self._http, "GET", calls.events_path(identity), headers=course.headers, timeout=events.SILENCE
            ) as source:
                if course.opens(source.response):
                    for event in source.iter_sse():
                        yield from course.hear(event)
                        if course.over:
                            return
        except httpx.TransportError:
            return

    def _call(self, call: Call[T]) -> T:
        request = call.build(self._http)
        for attempt in stamina.retry_context(
            seconds_to_wait(call.persistence, self._patience),
            attempts=self._patience.attempts,
            timeout=self._patience.seconds,
        ):
            with attempt:
                response = self._send(request)
        return call.understand(response)

    def _send(self, request: httpx.Request) -> httpx.Response:
        try:
            response = self._http.send(request)
        except httpx.TransportError as error:
            raise UnreachableError(self.url, error) from error
        if response.is_success:
            return response
        raise RefusedError(self.url, response)
