from __future__ import annotations

import io
import json
import logging
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager
from types import SimpleNamespace

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import StreamingResponse

from emboundary.service import problems
from emboundary.service.metrics import Metrics
from emboundary.service.operations import edge
from emboundary.service.operations.logs import logging_to
from emboundary.service.settings import Settings

Running = Callable[[FastAPI], AbstractContextManager[str]]


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def log() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def http(running: Running, metrics: Metrics, log: io.StringIO) -> Iterator[httpx.Client]:
    app, router, settings = FastAPI(), APIRouter(prefix="/v1"), Settings(log_level="debug")
    app.state.service = SimpleNamespace(metrics=metrics, settings=settings)
    problems.install(app)

    @router.get("/things/{name}")
    async def thing(request: Request, name: str) -> str:
        if name == "defect":
            raise ValueError("broken")
        request.state.client = "lab"
        logging.getLogger("inside").warning("working")
        return name

    @router.get("/stream")
    async def stream() -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            yield b"one"
            raise ValueError("half way")

        return StreamingResponse(parts())

    @app.get("/health/live")
    async def live() -> str:
        return "live"

    @app.post("/slow")
    async def slow(request: Request) -> str:
        return str(len(await request.body()))

    app.include_router(router)
    edge.install(app, settings, metrics, guarded=True)
    with logging_to(log, settings), running(app) as url, httpx.Client(base_url=url) as client:
        yield client


def lines(log: io.StringIO, event: str = "request") -> list[dict[str, object]]:
    return [line for text in log.getvalue().splitlines() if (line := json.loads(text))["event"] == event]


def count(metrics: Metrics, **labels: str) -> float | None:
    return metrics.registry.get_sample_value("emboundary_requests_total", labels)


def test_a_request_is_one_line_and_one_count(http: httpx.Client, metrics: Metrics, log: io.StringIO) -> None:
    answer = http.get("/v1/things/secret-name", params={"key": "secret"}, headers={"X-API-Key": "secret"})
    (line,) = lines(log)
    assert line["request_id"] == answer.headers["x-request-id"]
    assert {name: line[name] for name in ("method", "route", "status", "client", "level")} == {
        "method": "GET",
        "route": "/v1/things/{name}",
        "status": 200,
        "client": "lab",
        "level": "info",
    }
    assert float(str(line["ms"])) > 0
    assert "secret" not in log.getvalue()
    assert count(metrics, method="GET", route="/v1/things/{name}", status="200") == 1
    (inside,) = lines(log, "working")
    assert inside["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize("given", ["abc-1.2_3", "0" * 128])
def test_a_sane_id_is_kept(http: httpx.Client, given: str) -> None:
    assert http.get("/health/live", headers={"X-Request-Id": given}).headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "0" * 129, "a b", 'a"b', "a\tb", "\u00e9", "$(id)", "<script>"])
def test_any_other_id_is_replaced(http: httpx.Client, given: str) -> None:
    answer = http.get("/health/live", headers={"X-Request-Id": given.encode("latin-1")})
    assert len(answer.headers["x-request-id"]) == 32


def test_paths_that_do_not_exist_share_one_series(http: httpx.Client, metrics: Metrics) -> None:
    for number in range(20):
        assert http.get(f"/nothing/{number}").status_code == 404
    assert count(metrics, method="GET", route="none", status="404") == 20


def test_a_defect_is_answered_counted_and_logged_with_its_id(
    http: httpx.Client, metrics: Metrics, log: io.StringIO
) -> None:
    answer = http.get("/v1/things/defect")
    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
    assert "broken" not in answer.text
    assert count(metrics, method="GET", route="/v1/things/{name}", status="500") == 1
    (line,) = lines(log, "a request failed unexpectedly")
    assert line["request_id"] == answer.headers["x-request-id"]
    assert "ValueError: broken" in str(line["exception"])


def test_an_answer_that_breaks_off_is_counted_as_it_began(http: httpx.Client, metrics: Metrics) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        http.get("/v1/stream")
    assert count(metrics, method="GET", route="/v1/stream", status="200") == 1


def test_a_client_that_goes_away_unanswered_is_counted(http: httpx.Client, metrics: Metrics) -> None:
    host, port = str(http.base_url.host), int(http.base_url.port or 0)
    with socket.create_connection((host, port)) as connection:
        connection.sendall(b"POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 100")  # the service waits for the body
    while metrics.registry.get_sample_value("emboundary_requests_in_progress"):
        pass
    found = [count(metrics, method="POST", route="/slow", status=status) for status in ("499", "500", "400")]
    assert found == [1, None, None]


def test_what_machines_ask_all_the_time_is_logged_for_those_who_look(http: httpx.Client, log: io.StringIO) -> None:
    http.get("/health/live")
    (line,) = lines(log)
    assert line["level"] == "debug"
