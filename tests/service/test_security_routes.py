from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from emboundary.service.app import create_app
from emboundary.service.security.keys import SCOPES, new_key
from emboundary.service.settings import Settings

OPEN = {"/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"}
SECRETS = {scope: new_key(scope, frozenset({scope})) for scope in SCOPES}
OPERATIONS = 20  # at least: were there fewer, the table below would have been read wrong


def scope_of(path: str) -> str:
    if path == "/metrics" or path.startswith("/v2/repository"):
        return "admin"
    return "jobs" if path.startswith("/v1/jobs") else "predict"


@pytest.fixture(scope="module")
def http(
    settings: Settings,
    tmp_path_factory: pytest.TempPathFactory,
    running: Callable[[FastAPI], AbstractContextManager[str]],
) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("guarded")
    lines = SecretStr(",".join(key.line for _, key in SECRETS.values()))
    guarded = settings.model_copy(update={"api_keys": lines, "data_roots": (folder,), "state_dir": folder / "state"})
    with running(create_app(guarded)) as url, httpx.Client(base_url=url) as client:
        yield client


def operations(http: httpx.Client) -> list[tuple[str, str]]:
    paths = http.get("/openapi.json").json()["paths"]
    return [(method.upper(), path) for path, found in paths.items() for method in found]


def test_every_operation_asks_for_a_key_and_its_scope(http: httpx.Client) -> None:
    asked = operations(http)
    assert len(asked) >= OPERATIONS
    for method, path in asked:
        url = re.sub(r"\{\w+\}", "x", path)
        if path in OPEN:
            assert http.request(method, url).status_code == 200, path
            continue
        refused = http.request(method, url)
        assert refused.status_code == 401, (method, path)
        assert refused.headers["www-authenticate"].startswith("Bearer")
        for scope, (secret, _) in SECRETS.items():
            status = http.request(method, url, headers={"Authorization": f"Bearer {secret}"}).status_code
            assert status != 401, (method, path, scope)
            assert (status == 403) == (scope != scope_of(path)), (method, path, scope, status)


def test_a_wrong_key_is_refused_before_the_body_is_asked_for(http: httpx.Client) -> None:
    for path in ("/v1/predict", "/v1/jobs", "/v2/models/d4/infer"):
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nX-API-Key: wrong\r\nContent-Type: application/json\r\n"
        head += "Content-Length: 1000000\r\nExpect: 100-continue\r\n\r\n"
        with socket.create_connection((http.base_url.host, http.base_url.port or 0), 30) as connection:
            connection.sendall(head.encode())
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 401 "), path  # and not "100 Continue"


def test_keys_are_not_in_the_description_of_the_api(http: httpx.Client) -> None:
    text = http.get("/openapi.json").text
    assert not any(key.sha256 in text or secret in text for secret, key in SECRETS.values())


def test_what_a_refusal_says_has_no_place_of_this_machine_in_it(http: httpx.Client, repository: Path) -> None:
    headers = {"X-API-Key": SECRETS["jobs"][0]}
    for body in ({"input": "none.tif", "output": "a.zarr"}, {"input": "a", "output": "no folder/a.zarr"}):
        answer = http.post("/v1/jobs", json=body, headers=headers)
        assert answer.status_code == 422
        assert not re.search(r"(/home|/tmp|/root|/usr|guarded)", answer.text), answer.text
        assert str(repository) not in answer.text
