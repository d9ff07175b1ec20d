"""When a request is sent again: what went wrong, whether the service can have acted on it, and for how long."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import IntEnum

import httpx
from pydantic import ValidationError

from emboundary.service.errors import RemoteError
from emboundary.service.schemas import ProblemDocument

_BUSY = (429, 503)
_LATE = (502, 504)
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout)
_CUT_OFF = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)


class Persistence(IntEnum):
    """After what a request is sent again; each includes those before it.

    Attributes:
        ONCE: nothing.
        BUSY: a service that answers 429 or 503: it has not acted on the request.
        LOST: a connection that broke before the answer, or a 502 or 504: the service may have acted on it.
        ALWAYS: a service that cannot be reached at all: it may be restarting.
    """

    ONCE = 0
    BUSY = 1
    LOST = 2
    ALWAYS = 3


@dataclass(frozen=True)
class Patience:
    """How long to go on with a service that is busy, restarting, or cut off.

    Attributes:
        attempts: tries of one request, the first included.
        seconds: time from the first try after which no other is begun.
    """

    attempts: int = 60
    seconds: float = 120.0


PATIENT = Patience()


class RefusedError(RemoteError):
    """A service that answered, and not with a success.

    Attributes:
        status: HTTP status.
        detail: what the service said.
        retry_after: seconds after which it asks to be tried again; None where it does not.
    """

    def __init__(self, url: str, response: httpx.Response) -> None:
        self.status = response.status_code
        self.detail = _detail(response)
        self.retry_after = _retry_after(response.headers.get("Retry-After", ""))
        super().__init__(f"{url} answered {self.status}: {self.detail}")


class UnreachableError(RemoteError):
    """A service that did not answer; its cause says why."""

    def __init__(self, url: str, error: httpx.TransportError) -> None:
        reason = str(error) or type(error).__name__
        super().__init__(f"{url} cannot be reached ({reason}); start it with `emboundary serve`, or check --url")
        self.__cause__ = error


def seconds_to_wait(persistence: Persistence, patience: Patience) -> Callable[[Exception], bool | float]:
    """A judge of errors: not again, again after so many seconds, or (True) with growing pauses."""

    def judge(error: Exception) -> bool | float:
        if not isinstance(error, RefusedError):
            return isinstance(error, UnreachableError) and persistence >= _needed(error)
        if persistence < _needed(error):
            return False
        if error.retry_after is None:
            return True
        return error.retry_after if error.retry_after <= patience.seconds else False

    return judge


def _needed(error: RefusedError | UnreachableError) -> float:
    """The persistence from which on a request is sent again."""
    if isinstance(error, RefusedError):
        if error.status in _BUSY:
            return Persistence.BUSY
        return Persistence.LOST if error.status in _LATE else float("inf")
    if isinstance(error.__cause__, _NEVER_SENT):
        return Persistence.ALWAYS
    return Persistence.LOST if isinstance(error.__cause__, _CUT_OFF) else float("inf")


def _retry_after(value: str) -> float | None:
    """Seconds, from a number of them or from a date (RFC 9110, section 10.2.3)."""
    if value.isdecimal():
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())


def _detail(response: httpx.Response) -> str:
    try:
        return ProblemDocument.model_validate_json(response.content).detail
    except ValidationError:
        return f"{response.reason_phrase} (no emboundary service?)"
