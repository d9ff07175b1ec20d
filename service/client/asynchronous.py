"""``AsyncBoundaryClient``: the calls of ``BoundaryClient`` for asynchronous programs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Self, TypeVar

import anyio
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


class AsyncBoundaryClient:
    """A connection to one service, for many requests at a time in one thread; an asynchronous context manager.

    Every method does, takes, gives and raises what ``BoundaryClient`` says of it.

    Args:
        http: the HTTP client, with the service's URL as its base and its key in the headers.
        patience: how long requests go on while the service is busy or out of reach.
    """

    def __init__(self, http: httpx.AsyncClient, patience: Patience = PATIENT) -> None:
        self._http = http
        self._patience = patience

    @classmethod
    def connect(
        cls, url: str, *, api_key: str | None = None, timeout_s: float = 600.0, patience: Patience = PATIENT
    ) -> Self:
        """A client of the service at ``url``; nothing is sent yet."""
        address = Address.of(url, api_key, timeout_s)
        return cls(httpx.AsyncClient(base_url=address.url, headers=address.headers, timeout=address.timeout), patience)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    @property
    def url(self) -> str:
        """Where the service is."""
        return str(self._http.base_url)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def health(self) -> Health:
        """The default model and its device, of a service that can predict."""
        return await self._call(calls.health())

    async def models(self) -> ModelList:
        """What the service serves, and the limits in force."""
        return await self._call(calls.models())

    async def model(self, name: str | None = None, version: str | None = None) -> ModelReply:
        """One model's description and limits: the default model's where no name is given, of its newest version."""
        if version is None:
            return calls.choose(await self.models(), name, self.url)
        return await self._call(calls.model((await self.models()).default if name is None else name, version))

    async def predict(
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
        """Boundary probabilities of one section (y, x) or stack (z, y, x), in the same shape."""
        call = await anyio.to_thread.run_sync(
            lambda: calls.predict(
                image,
                model=model,
                version=version,
                tta=tta,
                dtype=dtype,
                intensity=intensity,
                deadline_s=deadline_s,
            )
        )
        return await self._call(call)

    async def submit(self, submission: JobSubmission) -> Job:
        """Have a volume mapped that the service can see; gives the job as it begins."""
        return await self._call(calls.submit(submission))

    async def jobs(self, *, states: Sequence[JobState] = (), limit: int = 100, before: str | None = None) -> JobList:
        """A page of jobs, the newest first; its ``next`` is the ``before`` of the next page."""
        return await self._call(calls.jobs(states, limit, before))

    async def job(self, identity: str) -> Job:
        """One job as it is now."""
        return await self._call(calls.job(identity))

    async def cancel(self, identity: str) -> Job:
        """Ask a job to stop, which it does at its next piece; gives the job as it is then."""
        return await self._call(calls.cancel(identity))

    async def follow(self, identity: str) -> AsyncIterator[Job]:
        """A job as it is now, then each time that it has changed, up to the one that is over."""
        course = events.Course()
        while not course.over:
            if course.streams:
                async for job in self._stream(identity, course):
                    yield job
            if not course.over:
                for job in course.take(await self._call(calls.job(identity, Persistence.ALWAYS))):
                    yield job
            if not course.over:
                await anyio.sleep(events.SECONDS_BETWEEN_TRIES)

    async def _stream(self, identity: str, course: events.Course) -> AsyncIterator[Job]:
        """What one stream of events tells, until it breaks."""
        try:
            async with httpx_sse.aconnect_sse(
                self._http, "GET", calls.events_path(identity), headers=course.headers, timeout=events.SILENCE
            ) as source:
                if course.opens(source.response):
                    async for event in source.aiter_sse():
                        for job in course.hear(event):
                            yield job
                        if course.over:
                            return
        except httpx.TransportError:
            return

    async def _call(self, call: Call[T]) -> T:
        request = call.build(self._http)
        async for attempt in stamina.retry_context(
            seconds_to_wait(call.persistence, self._patience),
            attempts=self._patience.attempts,
            timeout=self._patience.seconds,
        ):
            with attempt:
                response = await self._send(request)
        return call.understand(response)

    async def _send(self, request: httpx.Request) -> httpx.Response:
        try:
            response = await self._http.send(request)
        except httpx.TransportError as error:
            raise UnreachableError(self.url, error) from error
        if response.is_success:
            return response
        raise RefusedError(self.url, response)
