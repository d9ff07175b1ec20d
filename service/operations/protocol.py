"""HTTP/1.1 with bounds: on connections, on the time a head may take, and on clients that neither send on nor read.

uvicorn bounds none of these: a client that sends a byte a minute would keep its connection for good.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from emboundary.service.problems import MEDIA_TYPE
from emboundary.service.schemas import ProblemDocument
from emboundary.service.settings import Settings

_DETAILS = {
    400: "the request is no valid HTTP/1.1; check the program that sends it, and what stands between",
    408: "the head of the request was not complete within {seconds:g} s; send it at once",
    431: "the head of the request has more than {head_bytes} bytes; send fewer or shorter headers",
}


class _Connection(h11.Connection):
    """Remembers what status a fault asks for.

    Attributes:
        hint: of the last fault.
        head_bytes: largest head.
    """

    head_bytes = 16 * 1024

    def __init__(self, role: type[h11.SERVER]) -> None:
        super().__init__(role, self.head_bytes)
        self.hint = 400

    def next_event(self) -> Any:
        try:
            event = super().next_event()
            # h11 itself looks at heads that are not complete yet; one can also come all at once.
            if isinstance(event, h11.Request) and _size(event) > self.head_bytes:
                raise h11.RemoteProtocolError("the head is too large", error_status_hint=431)
        except h11.RemoteProtocolError as error:
            self.hint = error.error_status_hint
            raise
        return event


def _size(head: h11.Request) -> int:
    return len(head.target) + sum(len(name) + len(value) + len(b": \r\n") for name, value in head.headers)


def protocol_of(settings: Settings, refused: Callable[[str], None]) -> type[H11Protocol]:
    """The protocol of a server with these settings.

    Args:
        settings: its bounds.
        refused: told the reason of every refusal that happens here, before there is a request.
    """

    class Bounded(BoundedProtocol):
        bounds = settings
        on_refusal = staticmethod(refused)

    return Bounded


class BoundedProtocol(H11Protocol):
    """One connection; see the module."""

    conn: _Connection
    bounds: Settings
    on_refusal: Callable[[str], None]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.conn = _Connection(h11.SERVER)
        self._head: asyncio.TimerHandle | None = None
        self._rest: asyncio.TimerHandle | None = None
        self._reading: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.bounds.max_connections:
            self.on_refusal("connections")
            transport.abort()
        else:
            self._head = self.loop.call_later(self.bounds.header_timeout_s, self._head_timed_out)

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._head, self._rest, self._reading):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._mind_time()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._mind_time()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._reading = self.loop.call_later(self.bounds.body_timeout_s, self._abort, "slow_reader")

    def resume_writing(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        hint = self.conn.hint
        self._refuse(hint if hint in _DETAILS else 400, "protocol")

    def _mind_time(self) -> None:
        """Start the clock of a head that has begun, stop that of one that is there; likewise of an unwanted body."""
        closing = self.transport.is_closing()
        begun = self.conn.their_state is h11.IDLE and bool(self.conn.trailing_data[0])
        self._head = self._clock(self._head, begun and not closing, self._head_timed_out)
        # The answer is out, and the client still sends: what it sends is dropped, for so long.
        answered = self.conn.our_state in (h11.DONE, h11.MUST_CLOSE)
        unwanted = answered and self.conn.their_state is h11.SEND_BODY
        self._rest = self._clock(self._rest, unwanted and not closing, lambda: self._abort("slow_body"))

    def _clock(
        self, timer: asyncio.TimerHandle | None, wanted: bool, ring: Callable[[], object]
    ) -> asyncio.TimerHandle | None:
        if wanted:
            return timer or self.loop.call_later(self.bounds.header_timeout_s, ring)
        if timer is not None:
            timer.cancel()
        return None

    def _head_timed_out(self) -> None:
        self._head = None
        if not self.transport.is_closing():
            self._refuse(408, "slow_head")

    def _abort(self, reason: str) -> None:
        self.on_refusal(reason)
        self.transport.abort()

    def _refuse(self, status: int, reason: str) -> None:
        self.on_refusal(reason)
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            detail = _DETAILS[status].format(seconds=self.bounds.header_timeout_s, head_bytes=self.conn.head_bytes)
            document = ProblemDocument(title=HTTPStatus(status).phrase, status=status, detail=detail)
            content = document.model_dump_json().encode()
            headers = [
                ("Content-Type", MEDIA_TYPE),
                ("Content-Length", str(len(content))),
                ("X-Content-Type-Options", "nosniff"),
                ("Connection", "close"),
            ]
            reason_phrase = HTTPStatus(status).phrase
            for event in (
                h11.Response(status_code=status, headers=headers, reason=reason_phrase),
                h11.Data(data=content),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
