from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest

from emboundary.service.client.retrying import Patience, Persistence, RefusedError, UnreachableError, seconds_to_wait
from emboundary.service.errors import InputError, RemoteError

PATIENCE = Patience(attempts=3, seconds=60)


def refusal(status: int, retry_after: str | None = None) -> RefusedError:
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    return RefusedError("http://host", httpx.Response(status, headers=headers))


def in_seconds(seconds: float) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize(("value", "expected"), [("7", 7.0), ("0", 0.0), ("61", False), ("soon", True), ("", True)])
def test_the_service_says_when_to_come_again(value: str, expected: float) -> None:
    found = seconds_to_wait(Persistence.BUSY, PATIENCE)(refusal(429, value))
    assert (found, type(found)) == (expected, type(expected))


def test_it_may_say_so_as_a_date() -> None:
    judge = seconds_to_wait(Persistence.BUSY, PATIENCE)
    assert 25 <= judge(refusal(503, in_seconds(30))) <= 30
    assert judge(refusal(503, in_seconds(3600))) is False
    past = judge(refusal(503, in_seconds(-3600)))
    assert (past, type(past)) == (0.0, float)
    assert 25 <= judge(refusal(503, in_seconds(30).removesuffix(" GMT"))) <= 30


@pytest.mark.parametrize(
    ("error", "least"),
    [
        (refusal(429), Persistence.BUSY),
        (refusal(503), Persistence.BUSY),
        (refusal(502), Persistence.LOST),
        (refusal(504), Persistence.LOST),
        (UnreachableError("u", httpx.ReadError("reset")), Persistence.LOST),
        (UnreachableError("u", httpx.RemoteProtocolError("cut off")), Persistence.LOST),
        (UnreachableError("u", httpx.ConnectError("refused")), Persistence.ALWAYS),
        (UnreachableError("u", httpx.ConnectTimeout("nobody")), Persistence.ALWAYS),
        (UnreachableError("u", httpx.ReadTimeout("silence")), None),
        (refusal(400), None),
        (refusal(413), None),
        (refusal(500), None),
        (InputError("x"), None),
        (RemoteError("x"), None),
        (ValueError("x"), None),
    ],
    ids=repr,
)
def test_only_what_may_end_differently_is_tried_again(error: Exception, least: Persistence | None) -> None:
    for persistence in Persistence:
        again = least is not None and persistence >= least
        assert seconds_to_wait(persistence, PATIENCE)(error) is again
