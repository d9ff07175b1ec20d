"""One request for a map on its way through the service, and what can become of it at each step.

of:       let in; 503 while the service shuts down, 429 where its body would not fit beside the others
receive:  its body; 413 too large, 408 too slow, 429 no memory
read:     decoded in a thread; 400, 413, 422
compute:  queued and computed; 413 never in time, 429 not now, 504 out of time, 503 the service stops
write:    encoded in a thread
reply:    sent; its memory is given back when the client has taken it
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager
from typing import Any, TypeVar

import numpy as np
from fastapi import Request
from numpy.typing import NDArray

from emboundary.service.batching.asynchronous import submit
from emboundary.service.batching.errors import ExpiredError, OverloadedError, StoppedError, TooLongError
from emboundary.service.batching.image import ImageMap
from emboundary.service.batching.scheduler import expired
from emboundary.service.hosting import Served
from emboundary.service.memory import Share
from emboundary.service.probabilities import Dtype
from emboundary.service.refusal import RequestError
from emboundary.service.state import ServiceState, state_of
from emboundary.service.visits.body import receive
from emboundary.service.visits.question import Question
from emboundary.service.visits.reply import Reply

T = TypeVar("T")
Q = TypeVar("Q", bound=Question)

_RETRY = {"Retry-After": "1"}
_SMALLER = (
    "send it in smaller pieces, as `emboundary client predict` does, or submit the volume as a job (POST /v1/jobs)"
)


class Visit:
    """One request for a map, from its head to its answer; see the module."""

    def __init__(self, request: Request, state: ServiceState, share: Share, held: ExitStack) -> None:
        self._request = request
        self._state = state
        self._share = share
        self._held = held
        self._come: Callable[[], None] = lambda: None
        self._stack = ExitStack()
        self._seconds: dict[str, float] = {}

    @classmethod
    @asynccontextmanager
    async def of(cls, request: Request) -> AsyncIterator[Visit]:
        """Let a request in; what it holds is given back at the end.

        Raises:
            RequestError: 503 while the service shuts down; 429 where its body would not fit beside the others.
        """
        state = state_of(request)
        if state.draining:
            raise RequestError(
                503, "the service is shutting down; ask again once it runs", headers=_RETRY, reason="draining"
            )
        with ExitStack() as held:
            share = held.enter_context(state.memory.share())
            promised = request.headers.get("content-length", "")
            if promised.isdecimal() and int(promised) <= state.settings.max_body_bytes:
                share.refuse_unfit(int(promised))
            visit = cls(request, state, share, held)
            with visit._stack:
                yield visit

    def _timing(self) -> str:
        """Durations of its parts in milliseconds, as ``Server-Timing`` wants them."""
        return ", ".join(f"{part};dur={1000 * seconds:.1f}" for part, seconds in self._seconds.items())

    async def receive(self) -> bytes:
        """The body; receiving stops as soon as it is too large or too slow.

        Raises:
            RequestError: 413, 408, 429 where the memory for all requests is used up, or 400 for one cut short.
        """
        settings = self._state.settings
        limit = settings.max_body_bytes
        rule = f"at most {limit} are accepted (GET /v1/models): {_SMALLER}"
        body = await receive(self._request, limit, settings.body_timeout_s, rule, self._share.take)
        self._come = self._stack.enter_context(self._state.scheduler.coming())
        return body

    async def read(self, function: Callable[[], Q]) -> Q:
        """Decode the body in a thread.

        Raises:
            InputError: whatever is wrong with it.
        """
        question = await self._timed("decode", function)
        self._share.take(question.image.nbytes)
        return question

    async def compute(
        self, served: Served, question: Question, *, dtype: Dtype, tta: bool, timeout_s: float | None = None
    ) -> NDArray[Any]:
        """The map, as it is to be sent, in the question's shape.

        Args:
            served: the model.
            question: what is asked.
            dtype: of the map.
            tta: mean over the 8 rotations and flips.
            timeout_s: seconds that the client waits; the service's own limit where that is shorter.

        Raises:
            RequestError: 413 where no waiting would make it fit, 429 where there is no room now, 504 where its time
                ran out, 503 where the service stops, 400 where the client went away.
            InputError: an intensity that makes voxel values too large for the network.
            DeviceError: the runtime failed.
        """
        engine = served.opened
        if engine is None:
            engine = await self._in_thread(served.engine)
        limit_s = self._state.settings.request_timeout_s
        seconds = limit_s if timeout_s is None else min(timeout_s, limit_s)
        size = question.image.size * np.dtype(dtype).itemsize
        self._share.take(2 * size)  # the map, and its encoded copy
        mapped = ImageMap.begin(question.image, engine, question.intensity, tta=tta, dtype=dtype)
        await self._computed(mapped, seconds)
        return mapped.result.reshape(question.shape)

    async def write(self, function: Callable[[], T]) -> T:
        """Encode the answer in a thread."""
        return await self._timed("encode", function)

    def reply(self, content: bytes, media_type: str, headers: Mapping[str, str]) -> Reply:
        """The answer; what the visit holds is given back when the client has taken it."""
        held = self._held.pop_all()
        stall_s = self._state.settings.body_timeout_s
        headers = {**headers, "Server-Timing": self._timing()}
        return Reply(content, media_type, headers, stall_s=stall_s, release=held.close)

    async def _computed(self, mapped: ImageMap, seconds: float) -> None:
        scheduler = self._state.scheduler
        client = str(getattr(self._request.state, "client", ""))
        entered = time.perf_counter()
        try:
            tiles = mapped.tiles(self._state.settings.tile, scheduler.batch_pixels(mapped.engine))
            ticket, ended = submit(scheduler, client, tiles, seconds)
        except (TooLongError, OverloadedError, StoppedError) as error:
            raise _refusal(error) from error
        finally:
            self._come()
        gone = asyncio.ensure_future(self._gone())
        try:
            async with asyncio.timeout(seconds):
                await asyncio.wait({ended, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                raise RequestError(
                    400, "the connection closed before the answer; it was not computed", reason="disconnected"
                )
            ended.result()
        except TimeoutError:
            raise _refusal(expired()) from None
        except (ExpiredError, StoppedError) as error:
            raise _refusal(error) from error
        finally:
            gone.cancel()
            scheduler.cancel(ticket, StoppedError("nobody waits for it"))
            whole = time.perf_counter() - entered
            queued = whole if ticket.started is None else min(whole, ticket.started - ticket.entered)
            self._seconds = {"queue": queued, **self._seconds, "compute": whole - queued}

    async def _gone(self) -> None:
        """Return when the client has closed the connection."""
        while (await self._request.receive())["type"] != "http.disconnect":
            pass

    async def _timed(self, part: str, function: Callable[[], T]) -> T:
        began = time.perf_counter()
        try:
            return await self._in_thread(function)
        finally:
            self._seconds[part] = time.perf_counter() - began

    async def _in_thread(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._state.pool, function)


def _refusal(error: Exception) -> RequestError:
    jobs = "submit the volume as a job (POST /v1/jobs), or send smaller pieces, as `emboundary client predict` does"
    if isinstance(error, OverloadedError):
        return RequestError(429, str(error), headers={"Retry-After": str(error.retry_after_s)}, reason="queue_full")
    if isinstance(error, TooLongError):
        return RequestError(413, f"{error}: {jobs}", reason="too_long")
    if isinstance(error, ExpiredError):
        return RequestError(504, str(error), reason="deadline")
    return RequestError(503, str(error), headers=_RETRY, reason="draining")
