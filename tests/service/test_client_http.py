"""Both clients, the blocking and the asynchronous one, against a real service: the same calls, the same answers."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import imagecodecs
import numpy as np
import pytest
import stamina
from fastapi import FastAPI
from numpy.typing import NDArray

from emboundary.model.repository import load_model
from emboundary.service.app import create_app
from emboundary.service.client import AsyncBoundaryClient, BoundaryClient, Patience, RefusedError
from emboundary.service.engine import OnnxEngine
from emboundary.service.errors import InputError, OutputError, RemoteError, UsageError
from emboundary.service.preparing.intensity import measure
from emboundary.service.run.inference import predict_array
from emboundary.service.settings import Settings

Connect = Callable[..., Any]


class Blocking:
    """The asynchronous client as if it were the other one."""

    def __init__(self, http: httpx.AsyncClient, patience: Patience = Patience()) -> None:  # noqa: B008
        self._runner = asyncio.Runner()
        self._client = AsyncBoundaryClient(http, patience)

    @classmethod
    def connect(cls, url: str, **options: Any) -> Blocking:
        made = AsyncBoundaryClient.connect(url, **options)
        return cls(made._http, made._patience)

    def __enter__(self) -> Blocking:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._runner.run(self._client.aclose())
        self._runner.close()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if not inspect.iscoroutinefunction(found):
            return found
        return lambda *words, **options: self._runner.run(found(*words, **options))


class Flaky(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Fails as it is told, then passes on; keeps what it was asked."""

    def __init__(self, *failures: httpx.Response | httpx.TransportError) -> None:
        self.failures = list(failures)
        self.seen: list[httpx.Request] = []
        self.inner, self.inner_async = httpx.HTTPTransport(), httpx.AsyncHTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self._failure(request) or self.inner.handle_request(request)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return self._failure(request) or await self.inner_async.handle_async_request(request)

    def _failure(self, request: httpx.Request) -> httpx.Response | None:
        self.seen.append(request)
        if not self.failures:
            return None
        failure = self.failures.pop(0)
        if isinstance(failure, httpx.TransportError):
            raise failure
        # One of its own: the client ties a response to how it was sent.
        return httpx.Response(failure.status_code, headers=failure.headers, content=failure.content)

    def close(self) -> None:
        self.inner.close()

    async def aclose(self) -> None:
        await self.inner_async.aclose()


@pytest.fixture(params=[BoundaryClient, Blocking], ids=["blocking", "asynchronous"])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def client(kind: Any, url: str) -> Iterator[Any]:
    with kind.connect(url) as connected:
        yield connected


@pytest.fixture
def through(kind: Any, url: str) -> Callable[..., Any]:
    """A client whose requests pass a transport."""

    def connect(transport: Flaky, patience: Patience = Patience(attempts=4), **options: Any) -> Any:  # noqa: B008
        http = httpx.AsyncClient if kind is Blocking else httpx.Client
        return kind(http(base_url=url, transport=transport, **options), patience)

    return connect


@pytest.fixture
def _no_waiting() -> Iterator[None]:
    with stamina.set_testing(True, attempts=4, cap=True):
        yield


@pytest.fixture(scope="module")
def expected(repository: Path) -> Callable[[NDArray[Any]], NDArray[np.float32]]:
    engine = OnnxEngine.open(load_model("d4", repository), "cpu")
    return lambda stack: predict_array(engine, stack, measure(stack).intensity)


def section_of(shape: tuple[int, ...], dtype: str = "uint8") -> NDArray[Any]:
    return np.random.default_rng(1).integers(0, 256, shape).astype(dtype)


@pytest.mark.parametrize("shape", [(30, 40), (3, 30, 40), (3, 30, 3)])
def test_an_array_is_answered_in_its_shape(client: Any, expected: Any, shape: tuple[int, ...]) -> None:
    array = section_of(shape, "uint16")
    answer = client.predict(array)
    stack = array.reshape((-1, *shape[-2:]))
    np.testing.assert_allclose(answer.array, expected(stack).reshape(shape), atol=1e-5, rtol=0)
    assert answer.intensity == measure(stack).intensity
    assert (answer.model, answer.version, answer.device, len(answer.sha256)) == ("d4", "1", "cpu", 64)


@pytest.mark.parametrize("name", ["in.png", "in.TIF", "in.npy"])
@pytest.mark.parametrize("as_text", [True, False])
def test_a_file_is_sent_as_it_is(client: Any, expected: Any, tmp_path: Path, name: str, as_text: bool) -> None:
    array, path = section_of((30, 40)), tmp_path / name
    imagecodecs.imwrite(path, array) if name != "in.npy" else np.save(path, array)
    answer = client.predict(str(path) if as_text else path)
    np.testing.assert_allclose(answer.array, expected(array[None])[0], atol=1e-5, rtol=0)


def test_a_file_of_very_narrow_sections_is_not_taken_for_colour(client: Any, tmp_path: Path) -> None:
    imagecodecs.imwrite(tmp_path / "narrow.tif", section_of((9, 8, 3)), photometric="minisblack")
    assert client.predict(tmp_path / "narrow.tif").array.shape == (9, 8, 3)


@pytest.mark.parametrize(("name", "dtype"), [("out.npy", "float32"), ("out.tif", "float32"), ("out.png", "uint8")])
def test_an_answer_can_be_saved(client: Any, tmp_path: Path, name: str, dtype: Any) -> None:
    answer = client.predict(section_of((30, 40)), dtype=dtype)
    answer.save(tmp_path / name)
    found = np.load(tmp_path / name) if name == "out.npy" else imagecodecs.imread(tmp_path / name)
    np.testing.assert_array_equal(found, answer.array)


def test_what_cannot_be_sent_or_saved_is_refused_here(client: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"the image is .*in\.jpg; its name must end in \.npy, \.tif, \.tiff, \.png"):
        client.predict(tmp_path / "in.jpg")
    with pytest.raises(InputError, match=r"in\.png cannot be read \(No such file or directory\)"):
        client.predict(tmp_path / "in.png")
    with pytest.raises(UsageError, match=r"the image has shape \(9,\); it must be a section"):
        client.predict(np.zeros(9))
    answer = client.predict(section_of((9, 9)))
    with pytest.raises(OutputError, match=r"nowhere/out\.npy cannot be written \(No such file or directory\)"):
        answer.save(tmp_path / "nowhere" / "out.npy")
    with pytest.raises(UsageError, match="its name must end in"):
        answer.save(tmp_path / "out.zarr")


def test_models_are_found_by_name_and_version(client: Any) -> None:
    assert client.model().name == client.models().default == "d4"
    assert client.model("plain").name == client.model("plain", "1").name == "plain"
    assert client.model(version="1").name == "d4"
    with pytest.raises(RemoteError, match=r"model is 'best'; http://127\.0\.0\.1:\d+ serves d4, plain"):
        client.model("best")
    with pytest.raises(RefusedError, match="version") as caught:
        client.model("d4", "7")
    assert caught.value.status == 404
    section = section_of((30, 40))
    assert np.abs(client.predict(section).array - client.predict(section, model="plain").array).max() > 0.01


def test_health_names_model_and_device(client: Any) -> None:
    health = client.health()
    assert (health.status, health.model, health.device) == ("ready", "d4", "cpu")


def test_a_refusal_says_what_the_service_said(client: Any) -> None:
    with pytest.raises(RefusedError, match=r"answered 422: the image is constant \(every voxel is 7\)") as caught:
        client.predict(np.full((9, 9), 7))
    assert (caught.value.status, caught.value.retry_after) == (422, None)
    assert caught.value.detail.startswith("the image is constant")


@pytest.mark.usefixtures("_no_waiting")
@pytest.mark.parametrize("side", [600, 6000])
def test_a_refusal_that_comes_while_the_body_is_sent_is_heard(client: Any, side: int) -> None:
    with pytest.raises(RefusedError, match=r"answered 413: the body has \d+ bytes; at most 262144 are accepted"):
        client.predict(section_of((side, side)))


LOST = [httpx.ReadError("reset"), httpx.RemoteProtocolError("cut off"), httpx.Response(502), httpx.Response(504)]
BUSY = [httpx.Response(429, headers={"Retry-After": "0"}), httpx.Response(503)]


@pytest.mark.usefixtures("_no_waiting")
@pytest.mark.parametrize("failure", [httpx.ConnectError("refused"), *LOST, *BUSY], ids=repr)
def test_a_prediction_is_asked_for_again(through: Any, failure: Any) -> None:
    transport = Flaky(failure, failure)
    with through(transport) as client:
        assert client.predict(section_of((9, 9))).array.shape == (9, 9)
    first, *others = transport.seen
    assert [request.content for request in others] == [first.content] * 2


@pytest.mark.usefixtures("_no_waiting")
@pytest.mark.parametrize(
    ("call", "tolerated", "fatal"),
    [
        ("health", [], [httpx.ConnectError("refused"), *LOST, *BUSY]),
        ("models", BUSY, [httpx.ConnectError("refused"), *LOST]),
        ("cancel", BUSY, [httpx.ConnectError("refused"), *LOST]),
        ("job", [*BUSY, *LOST], [httpx.ConnectError("refused")]),
    ],
)
def test_other_calls_are_repeated_where_that_does_no_harm(through: Any, call: str, tolerated: Any, fatal: Any) -> None:
    words = ("abc",) if call in ("job", "cancel") else ()
    for failure in fatal:
        transport = Flaky(failure, httpx.Response(418))
        with through(transport) as client, pytest.raises(RemoteError):
            getattr(client, call)(*words)
        assert len(transport.failures) == 1, f"{call} was repeated after {failure!r}"
    transport = Flaky(*tolerated[:3], httpx.Response(418))
    with through(transport) as client, pytest.raises(RefusedError, match="answered 418"):
        getattr(client, call)(*words)


@pytest.mark.usefixtures("_no_waiting")
def test_patience_ends(through: Any) -> None:
    busy = httpx.Response(429, json={"title": "t", "status": 429, "detail": "the queue is full"})
    transport = Flaky(*[busy] * 9)
    with (
        through(transport, Patience(attempts=3)) as client,
        pytest.raises(RemoteError, match="answered 429: the queue is full"),
    ):
        client.predict(section_of((9, 9)))
    assert len(transport.failures) == 6


@pytest.mark.usefixtures("_no_waiting")
def test_nobody_waits_longer_than_patience_for_a_service_that_says_so(through: Any) -> None:
    transport = Flaky(httpx.Response(503, headers={"Retry-After": "121"}), httpx.Response(418))
    with through(transport) as client, pytest.raises(RefusedError, match="answered 503"):
        client.predict(section_of((9, 9)))
    assert len(transport.failures) == 1


def test_a_refused_request_is_not_asked_again(through: Any) -> None:
    transport = Flaky(httpx.Response(422), httpx.Response(418))
    with through(transport) as client, pytest.raises(RemoteError, match=r"answered 422: .* \(no emboundary service"):
        client.predict(section_of((9, 9)))
    assert len(transport.failures) == 1


def test_a_service_that_is_not_there_is_named_at_once(kind: Any) -> None:
    with (
        kind.connect("http://127.0.0.1:9") as client,
        pytest.raises(RemoteError, match=r"^http://127\.0\.0\.1:9 cannot be reached \(.*\); start it with `emboundary"),
    ):
        client.models()


@pytest.mark.usefixtures("_no_waiting")
def test_a_service_that_stays_away_is_named_in_the_end(
    kind: Any, settings: Settings, running: Callable[[FastAPI], AbstractContextManager[str]]
) -> None:
    with running(create_app(settings)) as url:
        client = kind.connect(url)
        client.predict(section_of((9, 9)))
    with client, pytest.raises(RemoteError, match="cannot be reached"):
        client.predict(section_of((9, 9)))


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://host", "http://", "http://a:b:c", ""])
def test_a_url_that_is_none_is_refused(kind: Any, url: str) -> None:
    with pytest.raises(RemoteError, match=r"url is .*give it as http://HOST:PORT"):
        kind.connect(url)


def test_a_url_with_a_password_is_refused_without_showing_it(kind: Any) -> None:
    with pytest.raises(RemoteError, match=r"url names a user before host; .* EMBOUNDARY_API_KEY") as caught:
        kind.connect("http://me:secret@host")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("content", [b"<html>", b"{}", b'{"default": "d4", "models": [{}]}'])
def test_another_service_is_recognised(through: Any, content: bytes) -> None:
    with (
        through(Flaky(httpx.Response(200, content=content))) as client,
        pytest.raises(RemoteError, match="gave an answer that is not an emboundary service's"),
    ):
        client.models()


def test_an_answer_of_another_shape_is_none(through: Any) -> None:
    transport = Flaky()
    with through(transport) as client:
        client.predict(section_of((9, 9)))
    said = {"X-Emboundary-Intensity": "1,1"}
    for body in (b"no array", transport.seen[0].content[:-1]):
        with (
            through(Flaky(httpx.Response(200, content=body, headers=said))) as client,
            pytest.raises(RemoteError, match="gave an answer that is not"),
        ):
            client.predict(section_of((9, 9)))


def test_the_key_is_in_every_request(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def sent(**options: Any) -> str | None:
        with kind.connect("http://127.0.0.1:9", **options) as client:
            value: str | None = client._http.headers.get("Authorization") if kind is not Blocking else None
            return value if kind is not Blocking else client._client._http.headers.get("Authorization")

    monkeypatch.delenv("EMBOUNDARY_API_KEY", raising=False)
    assert sent() is None
    assert sent(api_key="emb_1") == "Bearer emb_1"
    monkeypatch.setenv("EMBOUNDARY_API_KEY", "emb_2")
    assert sent() == "Bearer emb_2"
    assert sent(api_key="emb_3") == "Bearer emb_3"
    assert sent(api_key="") is None
    with pytest.raises(RemoteError, match="api_key holds characters that no key has") as caught:
        sent(api_key="emb_\n4")
    assert "emb_" not in str(caught.value)


def test_requests_go_below_the_path_of_a_proxy(kind: Any) -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        return httpx.Response(200, content=json.dumps({"status": "ready"}))

    http = httpx.AsyncClient if kind is Blocking else httpx.Client
    with kind(http(base_url="http://host/em/", transport=httpx.MockTransport(answer))) as client:
        assert client.health().status == "ready"
    assert asked == ["/em/health/ready"]


def test_many_requests_share_one_asynchronous_client(url: str, expected: Any) -> None:
    sections = [section_of((20 + n, 30)) for n in range(12)]

    async def ask() -> list[Any]:
        async with AsyncBoundaryClient.connect(url) as client:
            return await asyncio.gather(*(client.predict(section) for section in sections))

    for section, answer in zip(sections, asyncio.run(ask()), strict=True):
        np.testing.assert_allclose(answer.array, expected(section[None])[0], atol=1e-5, rtol=0)


def test_both_clients_have_the_same_calls() -> None:
    def calls(client: type) -> dict[str, list[str]]:
        methods = inspect.getmembers(client, inspect.isfunction)
        return {name: list(inspect.signature(f).parameters) for name, f in methods if not name.startswith("_")}

    renamed = {
        name.removeprefix("a") if name == "aclose" else name: p for name, p in calls(AsyncBoundaryClient).items()
    }
    assert renamed == calls(BoundaryClient)
