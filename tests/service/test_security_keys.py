from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from fastapi import FastAPI, Request
from pydantic import SecretStr

from emboundary.service import problems
from emboundary.service.errors import UsageError
from emboundary.service.metrics import Metrics
from emboundary.service.security import keys as module
from emboundary.service.security.keys import Key, Keys, new_key, parse_scopes, require
from emboundary.service.settings import Settings

ALICE, ALICE_KEY = new_key("alice", frozenset({"predict", "jobs"}))
Running = Callable[[FastAPI], AbstractContextManager[str]]
ROOT, ROOT_KEY = new_key("root", frozenset({"admin"}))


def serve(keys: Keys) -> FastAPI:
    app = FastAPI()
    app.state.service = SimpleNamespace(keys=keys, metrics=Metrics(), settings=Settings())
    problems.install(app)

    @app.get("/jobs", dependencies=[require("jobs")])
    async def jobs(request: Request) -> str:
        return str(request.state.client)

    @app.get("/admin", dependencies=[require("admin")])
    async def admin() -> str:
        return "done"

    return app


@pytest.fixture(scope="module")
def guarded(running: Running) -> Iterator[httpx.Client]:
    with running(serve(Keys([ALICE_KEY, ROOT_KEY]))) as url, httpx.Client(base_url=url) as client:
        yield client


def test_a_new_key_is_long_and_only_its_sum_is_kept() -> None:
    secret, key = new_key("lab", frozenset({"predict"}))
    assert len(secret) >= 40
    assert secret not in key.line
    assert key.line == f"lab:predict:{hashlib.sha256(secret.encode()).hexdigest()}"
    assert Key.parse(key.line) == key
    assert new_key("lab", frozenset({"predict"}))[0] != secret


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {ALICE}"},
        {"Authorization": f"bearer {ALICE}"},
        {"X-API-Key": ALICE},
        {"x-api-key": ALICE, "Authorization": "Basic YWxpY2U6"},
    ],
)
def test_a_key_opens_what_it_has_the_scope_for(guarded: httpx.Client, headers: dict[str, str]) -> None:
    response = guarded.get("/jobs", headers=headers)
    assert (response.status_code, response.json()) == (200, "alice")
    refused = guarded.get("/admin", headers=headers)
    assert refused.status_code == 403
    assert refused.headers["www-authenticate"] == 'Bearer realm="emboundary", error="insufficient_scope", scope="admin"'
    assert refused.json()["detail"].startswith("key 'alice' has scope jobs+predict; this call needs admin")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": f"Basic {ALICE}"},
        {"Authorization": ALICE},
        {"Authorization": "Bearer"},
        {"Authorization": f"Bearer {ALICE}x"},
        {"Authorization": f"Bearer {ALICE[:-1]}"},
        {"Authorization": f"Bearer {ALICE.upper()}"},
        {"Authorization": f"Bearer {ALICE_KEY.sha256}"},
        {"Authorization": "Bearer \u00e9".encode("latin-1").decode("latin-1")},
        {"X-API-Key": ""},
        {"X-API-Key": f"{ALICE},{ROOT}"},
        {"X-API-Key": "' OR 1=1 --"},
        {"X-API-Key": ALICE_KEY.line},
        {"Cookie": f"X-API-Key={ALICE}"},
    ],
)
def test_anything_else_is_401_and_not_repeated(guarded: httpx.Client, headers: dict[str, str]) -> None:
    response = guarded.get("/jobs", headers={name: value.encode("latin-1") for name, value in headers.items()})
    assert response.status_code == 401
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["www-authenticate"].startswith('Bearer realm="emboundary"')
    assert ALICE not in response.text
    assert ALICE_KEY.sha256 not in response.text


def test_a_key_in_the_query_opens_nothing(guarded: httpx.Client) -> None:
    assert guarded.get("/jobs", params={"api_key": ALICE, "X-API-Key": ALICE}).status_code == 401


def test_without_keys_everybody_may_do_everything_under_their_address(running: Running) -> None:
    with running(serve(Keys())) as url:
        response = httpx.get(f"{url}/jobs", headers={"Authorization": "Bearer whatever"})
    assert (response.status_code, response.json()) == (200, "127.0.0.1")


def test_all_keys_are_compared_whichever_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str] = []

    def compare(kept: str, presented: str) -> bool:
        compared.append(kept)
        return hmac.compare_digest(kept, presented)

    monkeypatch.setattr(module, "hmac", SimpleNamespace(compare_digest=compare))
    keys = Keys([ALICE_KEY, ROOT_KEY])
    for presented, expected in ((ALICE, ALICE_KEY), (ROOT, ROOT_KEY), ("nobody", None)):
        compared.clear()
        assert keys.find(presented) == expected
        assert compared == [ALICE_KEY.sha256, ROOT_KEY.sha256]


def test_keys_come_from_the_file_and_the_environment_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository: Path
) -> None:
    path = tmp_path / "keys"
    path.write_text(f"# the lab\n\n  {ALICE_KEY.line}  \n")
    monkeypatch.setenv("EMBOUNDARY_API_KEYS_FILE", str(path))
    monkeypatch.setenv("EMBOUNDARY_API_KEYS", f"{ROOT_KEY.line.upper().replace('ROOT:ADMIN', 'root:admin')},")
    keys = Keys.of(Settings(repository=repository))
    assert keys.find(ALICE) == ALICE_KEY
    assert keys.find(ROOT) == ROOT_KEY
    assert keys
    monkeypatch.delenv("EMBOUNDARY_API_KEYS_FILE")
    monkeypatch.delenv("EMBOUNDARY_API_KEYS")
    assert not Keys.of(Settings(repository=repository))


SUM = "0" * 64


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "name no key"),
        ("# none yet\n", "name no key"),
        pytest.param(ALICE, "line 1: a line has 1 parts; it must be NAME:SCOPES:SHA256", id="a key alone"),
        (f"a:predict:{SUM}\nb:everything:{SUM}", "line 2: scopes is 'everything'; it must be one or more of"),
        (f"a::{SUM}", "line 1: scopes is ''"),
        (f"a:predict+:{SUM}", "line 1: scopes is 'predict+'"),
        (f"a b:predict:{SUM}", "line 1: name is 'a b'; it must be letters"),
        (f":predict:{SUM}", "line 1: name is ''"),
        pytest.param(f"a:predict:{ALICE}", "line 1: the sum is not 64 hexadecimal digits", id="a key as its sum"),
        (f"a:predict:{SUM}\nb:admin:{SUM}", "two lines have the sum of key 'a'"),
    ],
)
def test_a_file_that_is_wrong_is_one_line_without_its_content(
    tmp_path: Path, repository: Path, text: str, message: str
) -> None:
    path = tmp_path / "keys"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        Keys.of(Settings(repository=repository, api_keys_file=path))
    assert message in str(caught.value)
    assert ALICE not in str(caught.value)
    assert SUM not in str(caught.value)


def test_keys_of_the_environment_that_are_wrong_are_one_line(repository: Path) -> None:
    with pytest.raises(UsageError, match="api_keys, entry 2: a line has 1 parts"):
        Keys.of(Settings(repository=repository, api_keys=SecretStr(f"{ALICE_KEY.line},{ROOT}")))


def test_a_file_that_is_not_text_is_one_line(tmp_path: Path, repository: Path) -> None:
    (tmp_path / "keys").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="which cannot be read"):
        Keys.of(Settings(repository=repository, api_keys_file=tmp_path / "keys"))


@pytest.mark.parametrize("text", ["", "+", "predict jobs", "PREDICT", "predict+root"])
def test_scopes_that_do_not_exist_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="it must be one or more of predict, jobs, admin"):
        parse_scopes(text)


def test_the_openapi_document_names_both_ways(guarded: httpx.Client) -> None:
    document = guarded.get("/openapi.json").json()
    assert document["paths"]["/jobs"]["get"]["security"] == [{"HTTPBearer": []}, {"APIKeyHeader": []}]
    assert set(document["components"]["securitySchemes"]) == {"HTTPBearer", "APIKeyHeader"}
