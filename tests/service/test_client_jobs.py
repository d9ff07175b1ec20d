"""Jobs through both clients, followed over a connection that holds, that breaks, and that lets no stream through."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tifffile
from fastapi import FastAPI

from emboundary.model.repository import load_model
from emboundary.service.app import create_app
from emboundary.service.client import AsyncBoundaryClient, BoundaryClient, Job, JobSubmission, Patience, RefusedError
from emboundary.service.client import events as events_module
from emboundary.service.engine import OnnxEngine
from emboundary.service.errors import RemoteError, UsageError
from emboundary.service.preparing.intensity import measure
from emboundary.service.run.inference import predict_array
from emboundary.service.settings import Settings

ARRAY = np.random.default_rng(0).integers(0, 256, (3, 50, 61), dtype=np.uint8)
LARGE = np.random.default_rng(0).integers(0, 256, (40, 400, 400), dtype=np.uint8)
Follow = Callable[..., list[Job]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    tifffile.imwrite(folder / "in.tif", ARRAY, photometric="minisblack")
    tifffile.imwrite(folder / "large.tif", LARGE, photometric="minisblack")
    return folder


@pytest.fixture(scope="module")
def url(serving_jobs: Callable[[Path], AbstractContextManager[str]], data: Path) -> Iterator[str]:
    with serving_jobs(data) as address:
        yield address


@pytest.fixture
def client(url: str) -> Iterator[BoundaryClient]:
    with BoundaryClient.connect(url) as connected:
        yield connected


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_module, "SECONDS_BETWEEN_TRIES", 0.01)


class _Cut(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that breaks off behind its first piece."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __iter__(self) -> Iterator[bytes]:
        yield next(iter(self.inner))
        raise httpx.ReadError("cut off")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield await anext(aiter(self.inner))
        raise httpx.ReadError("cut off")

    def close(self) -> None:
        self.inner.close()

    async def aclose(self) -> None:
        await self.inner.aclose()


class Wire(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Passes everything on; ``cut`` streams of events break behind their first piece, ``none`` come through."""

    def __init__(self, fault: str) -> None:
        self.fault = fault
        self.seen: list[httpx.Request] = []
        self.inner, self.inner_async = httpx.HTTPTransport(), httpx.AsyncHTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self._refusal(request) or self._mangled(request, self.inner.handle_request(request))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return self._refusal(request) or self._mangled(request, await self.inner_async.handle_async_request(request))

    def _refusal(self, request: httpx.Request) -> httpx.Response | None:
        self.seen.append(request)
        if self.fault == "none" and request.url.path.endswith("/events"):
            return httpx.Response(404, text="no such page")
        if self.fault == "swallowed" and request.url.path.endswith("/events"):
            return httpx.Response(200, text="<html>", headers={"Content-Type": "text/html"})
        return None

    def _mangled(self, request: httpx.Request, response: httpx.Response) -> httpx.Response:
        if self.fault != "cut" or not request.url.path.endswith("/events"):
            return response
        return httpx.Response(response.status_code, headers=response.headers, stream=_Cut(response.stream))

    def close(self) -> None:
        self.inner.close()

    async def aclose(self) -> None:
        await self.inner_async.aclose()


@pytest.fixture(params=["blocking", "asynchronous"])
def follow(request: pytest.FixtureRequest, url: str) -> Follow:
    """All that a client hears of a job, over a wire."""

    def blocking(identity: str, wire: Wire, patience: Patience) -> list[Job]:
        with BoundaryClient(httpx.Client(base_url=url, transport=wire), patience) as client:
            return list(client.follow(identity))

    async def asynchronous(identity: str, wire: Wire, patience: Patience) -> list[Job]:
        async with AsyncBoundaryClient(httpx.AsyncClient(base_url=url, transport=wire), patience) as client:
            return [job async for job in client.follow(identity)]

    def run(identity: str, fault: str = "", patience: Patience = Patience()) -> list[Job]:  # noqa: B008
        wire = Wire(fault)
        heard = (
            blocking(identity, wire, patience)
            if request.param == "blocking"
            else asyncio.run(asynchronous(identity, wire, patience))
        )
        run.seen = wire.seen  # type: ignore[attr-defined]
        return heard

    return run


def submission(output: str, source: str = "in.tif", **options: Any) -> JobSubmission:
    return JobSubmission(**{"input": source, "output": output, "tile": 24, **options})


@pytest.mark.parametrize("fault", ["", "cut", "none", "swallowed"])
def test_a_job_is_followed_to_its_end(
    client: BoundaryClient, follow: Follow, repository: Path, data: Path, fault: str, request: pytest.FixtureRequest
) -> None:
    name = f"{request.node.name.translate(str.maketrans('[]', '__'))}.tif"
    submitted = client.submit(submission(name, dtype="float32"))
    assert (submitted.state, submitted.model.name, submitted.request.output) == ("queued", "d4", name)
    heard = follow(submitted.id, fault)
    assert [job.state for job in heard][-1] == "succeeded", heard[-1].error
    assert not any(job.over for job in heard[:-1])
    assert all(a != b for a, b in pairwise(heard))
    assert heard[-1] == client.job(submitted.id)
    expected = predict_array(OnnxEngine.open(load_model("d4", repository), "cpu"), ARRAY, measure(ARRAY).intensity)
    np.testing.assert_allclose(tifffile.imread(data / name), expected, atol=1e-5, rtol=0)


def test_what_was_heard_is_not_asked_for_again(client: BoundaryClient, follow: Follow) -> None:
    submitted = client.submit(submission(f"again{id(follow)}.zarr", "large.tif"))
    heard = follow(submitted.id, "cut")
    asked = [r.headers.get("Last-Event-ID") for r in follow.seen if r.url.path.endswith("/events")]  # type: ignore[attr-defined]
    assert asked[0] is None
    assert len(asked) > 1
    known = {str(job.revision) for job in heard}
    assert set(asked[1:]) <= known


def test_a_running_job_is_cancelled(client: BoundaryClient, follow: Follow) -> None:
    submitted = client.submit(submission(f"cancelled{id(follow)}.zarr", "large.tif", tile=8))
    cancelled = client.cancel(submitted.id)
    assert cancelled.cancel_requested or cancelled.state == "cancelled"
    assert follow(submitted.id)[-1].state == "cancelled"
    with pytest.raises(RefusedError, match=r"answered 409: .* nothing to cancel") as caught:
        client.cancel(submitted.id)
    assert caught.value.status == 409


def test_a_submission_that_arrives_twice_is_one_job(url: str) -> None:
    """The answer to the first is lost on its way."""

    class Lossy(httpx.HTTPTransport):
        lost: Job | None = None

        def handle_request(self, request: httpx.Request) -> httpx.Response:
            response = super().handle_request(request)
            if self.lost is None:
                Lossy.lost = Job.model_validate_json(response.read())
                raise httpx.ReadError("reset")
            return response

    with BoundaryClient(httpx.Client(base_url=url, transport=Lossy())) as client:
        submitted = client.submit(submission("twice.zarr"))
        assert Lossy.lost is not None
        assert submitted.id == Lossy.lost.id
        assert [job.id for job in client.jobs(limit=1).jobs] == [submitted.id]
        others = client.submit(submission("another.zarr"))
        assert others.id != submitted.id
        for job in (submitted, others):
            assert list(client.follow(job.id))[-1].state == "succeeded"


def test_jobs_come_in_pages_the_newest_first(client: BoundaryClient) -> None:
    ids = [client.submit(submission(f"page{n}.zarr")).id for n in range(3)]
    for identity in ids:
        list(client.follow(identity))
    first = client.jobs(limit=2)
    assert [job.id for job in first.jobs] == ids[:0:-1]
    rest = client.jobs(limit=1, before=first.next, states=("succeeded", "failed"))
    assert [job.id for job in rest.jobs] == ids[:1]
    assert client.jobs(states=("queued",)).jobs == ()


def test_refusals_of_jobs_say_why(client: BoundaryClient, follow: Follow) -> None:
    with pytest.raises(RefusedError, match="answered 422") as caught:
        client.submit(submission("../out.zarr"))
    assert caught.value.status == 422
    for call in (client.job, client.cancel, follow):
        with pytest.raises(RefusedError, match="answered 404: job 'abc' is not known here"):
            call("abc")
        with pytest.raises(UsageError, match=r"job is '\.\./models'; give the id"):
            call("../models")


def test_following_ends_where_the_service_stays_away(
    settings: Settings,
    running: Callable[[FastAPI], AbstractContextManager[str]],
    data: Path,
    tmp_path: Path,
) -> None:
    app = create_app(settings.model_copy(update={"data_roots": (data,), "state_dir": tmp_path}))
    with running(app) as url:
        client = BoundaryClient.connect(url, patience=Patience(attempts=2))
        submitted = client.submit(submission("away.zarr", "large.tif", tile=8))
        heard = client.follow(submitted.id)
        assert next(heard).state in ("queued", "running")
        app.state.service.drain()
    with client, pytest.raises(RemoteError, match="cannot be reached"):
        list(heard)


def test_following_goes_on_after_a_restart(
    settings: Settings,
    running: Callable[[FastAPI], AbstractContextManager[str]],
    data: Path,
    tmp_path: Path,
) -> None:
    """The second server stands for the first on the same state; the wire leads to whichever runs."""
    changed = settings.model_copy(update={"data_roots": (data,), "state_dir": tmp_path})
    place: list[str] = []

    class Moving(httpx.HTTPTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            request.url = request.url.copy_with(port=httpx.URL(place[-1]).port)
            return super().handle_request(request)

    client = BoundaryClient(httpx.Client(base_url="http://127.0.0.1:1", transport=Moving()))
    first = create_app(changed)
    with running(first) as url:
        place.append(url)
        submitted = client.submit(submission("restarted.zarr", "large.tif", tile=24, chunk="4,128,128", pyramid=False))
        heard = client.follow(submitted.id)
        while next(heard).state == "queued":
            pass
        first.state.service.drain()
    with client, running(create_app(changed)) as url:
        place.append(url)
        rest = list(heard)
    assert rest[-1].state == "succeeded", rest[-1].error
    assert rest[-1].runs == 2


def test_an_event_of_another_service_is_recognised() -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=b'data: {"id": 7}\n\n', headers={"Content-Type": "text/event-stream"})

    with (
        BoundaryClient(httpx.Client(base_url="http://host", transport=httpx.MockTransport(answer))) as client,
        pytest.raises(RemoteError, match="an event of the job is not an emboundary service's"),
    ):
        list(client.follow("abc"))
