from __future__ import annotations

import http.client
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from emboundary.service import problems
from emboundary.service.metrics import Metrics
from emboundary.service.operations import edge
from emboundary.service.routes import docs
from emboundary.service.settings import Settings

Running = Callable[[FastAPI], AbstractContextManager[str]]


def serve(*, guarded: bool = False, **options: Any) -> FastAPI:
    app, settings, metrics = FastAPI(docs_url=None), Settings(**options), Metrics()
    app.state.service = SimpleNamespace(metrics=metrics, settings=settings)
    problems.install(app)
    app.include_router(docs.router)

    @app.get("/things/{name}")
    @app.post("/things/{name}")
    async def thing(name: str) -> str:
        if name == "defect":
            raise ValueError(name)
        return name

    edge.install(app, settings, metrics, guarded=guarded)
    return app


@pytest.mark.parametrize("path", ["/things/a", "/nothing", "/things/defect", "/openapi.json"])
def test_every_answer_carries_them(running: Running, path: str) -> None:
    with running(serve()) as url:
        found = httpx.get(url + path).headers
    assert found["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert found["x-content-type-options"] == "nosniff"
    assert found["x-frame-options"] == "DENY"
    assert found["referrer-policy"] == "no-referrer"
    assert found["cross-origin-resource-policy"] == "same-origin"
    assert found["cache-control"] == "no-store"
    assert not any(name.startswith("access-control-") for name in found)


def test_the_documentation_needs_nothing_from_elsewhere(running: Running) -> None:
    with running(serve()) as url, httpx.Client(base_url=url) as client:
        page = client.get("/docs")
        assert "script-src 'self'" in page.headers["content-security-policy"]
        assert "http" not in page.text.replace("<!DOCTYPE html>", "")
        names = [part.split('"')[0] for part in page.text.split('="docs/')[1:]]
        assert len(names) == 4
        for name in names:
            answer = client.get(f"/docs/{name}")
            assert (answer.status_code, bool(answer.content)) == (200, True), name
        assert "SwaggerUIBundle" in client.get("/docs/swagger-ui-bundle.js").text
        assert client.get("/docs/other.js").status_code == 422


def ask(url: str, host: str) -> int:
    connection = http.client.HTTPConnection(url.removeprefix("http://"))
    connection.putrequest("GET", "/things/a", skip_host=True)
    connection.putheader("Host", host)
    connection.endheaders()
    status = connection.getresponse().status
    connection.close()
    return status


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("127.0.0.1:8000", 200),
        ("localhost:1", 200),
        ("LOCALHOST", 200),
        ("[::1]:80", 200),
        ("evil.example", 421),
        ("evil.example:8000", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1@evil.example", 421),
        ("169.254.169.254", 421),
        ("", 421),
    ],
)
def test_without_keys_only_this_machine_is_a_host(running: Running, host: str, status: int) -> None:
    with running(serve()) as url:
        assert ask(url, host) == status


def test_with_keys_or_without_any_guard_every_host_is_answered(running: Running) -> None:
    for app in (serve(guarded=True), serve(no_auth=True)):
        with running(app) as url:
            assert ask(url, "em.example") == 200


def test_hosts_that_are_named_are_the_only_ones(running: Running) -> None:
    with running(serve(guarded=True, allowed_hosts=("em.example", "::1"))) as url:
        assert ask(url, "em.example:443") == 200
        assert ask(url, "[::1]:80") == 200
        assert ask(url, "127.0.0.1") == 421


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1.evil.example", "http://[", "x"])
def test_pages_from_elsewhere_change_nothing(running: Running, origin: str) -> None:
    with running(serve()) as url, httpx.Client(base_url=url, headers={"Origin": origin}) as client:
        refused = client.post("/things/a")
        assert (refused.status_code, refused.headers["content-type"]) == (403, "application/problem+json")
        assert client.get("/things/a").status_code == 200
        assert "access-control-allow-origin" not in client.get("/things/a").headers


def test_our_own_pages_and_those_that_are_named_may_ask(running: Running) -> None:
    with running(serve(cors_origins=("https://viewer.example",))) as url:
        assert httpx.post(f"{url}/things/a", headers={"Origin": url}).status_code == 200
        answer = httpx.post(f"{url}/things/a", headers={"Origin": "https://viewer.example"})
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == "https://viewer.example"
        assert "X-Request-Id" in answer.headers["access-control-expose-headers"]
        assert "access-control-allow-credentials" not in answer.headers
        asked = {"Origin": "https://viewer.example", "Access-Control-Request-Method": "POST"}
        asked["Access-Control-Request-Headers"] = "x-api-key"
        assert httpx.options(f"{url}/things/a", headers=asked).status_code == 200
        assert httpx.options(f"{url}/things/a", headers=asked | {"Origin": "https://evil.example"}).status_code == 400


def test_where_keys_are_needed_no_origin_is_refused(running: Running) -> None:
    with running(serve(guarded=True)) as url:
        assert httpx.post(f"{url}/things/a", headers={"Origin": "https://elsewhere.example"}).status_code == 200
