"""One id, one count and one log line for every request, whatever becomes of it."""

from __future__ import annotations

import logging
import re
import time
import uuid
from typing import Any

from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bound_contextvars

from emboundary.service import problems
from emboundary.service.metrics import Metrics

NO_ROUTE = "none"
# What nginx logs, too, for clients that went away before they were answered.
GONE = 499

_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
# Asked for every few seconds by machines: of interest only to those who look for them.
_QUIET = frozenset({"/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready", "/metrics"})
_log = logging.getLogger("emboundary.access")


class Access:
    """Gives requests an id (``X-Request-Id``, the client's own where it is a sane one), counts them and logs them.

    Args:
        app: what answers.
        metrics: where requests are counted.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _ID.fullmatch(given) else uuid.uuid4().hex
        started, status, noted = time.perf_counter(), GONE, False

        def note() -> None:
            nonlocal noted
            if not noted:
                noted = True
                self._note(scope, status, time.perf_counter() - started)

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            elif not message.get("more_body", False):
                note()  # before the client has it all: whoever has an answer finds it counted
            await send(message)

        with bound_contextvars(request_id=request_id), self._metrics.in_progress():
            try:
                await self._app(scope, receive, sending)
            except ClientDisconnect:
                _log.debug("the client went away")
            except Exception as error:
                if status != GONE:
                    raise
                # Answered here, so that a defect's answer has an id and a count like any other.
                response = await problems.answer(Request(scope), error)
                await response(scope, receive, sending)
            finally:
                note()
        return None

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", NO_ROUTE)
        self._metrics.answered(scope["method"], route, status, seconds)
        state: dict[str, Any] = scope.get("state", {})
        level = logging.DEBUG if route in _QUIET and status < 400 else logging.INFO
        _log.log(
            level,
            "request",
            extra={
                "method": scope["method"],
                "route": route,
                "status": status,
                "ms": round(1000 * seconds, 1),
                "client": state.get("client", scope["client"][0] if scope.get("client") else "unknown"),
            },
        )
