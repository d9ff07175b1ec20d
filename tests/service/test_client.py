from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import stamina
from fastapi import FastAPI
from hypothesis import given
from hypothesis import settings as limits_of
from hypothesis import strategies as st
from numpy.typing import NDArray

from emboundary.model.geometry import BlockGrid, Box
from emboundary.model.repository import load_model
from emboundary.service.app import create_app
from emboundary.service.client.http import BoundaryClient, Patience
from emboundary.service.client.streaming import RemoteModel
from emboundary.service.engine import OnnxEngine
from emboundary.service.errors import RemoteError, UsageError
from emboundary.service.preparing.intensity import Intensity, measure
from emboundary.service.run.inference import predict_array
from emboundary.service.run.tiling import Tiling, split
from emboundary.service.schemas import ModelReply
from emboundary.service.settings import Settings

INTENSITY = Intensity(120.0, 40.0)


@pytest.fixture
def client(url: str) -> Iterator[BoundaryClient]:
    with BoundaryClient.connect(url) as connected:
        yield connected


@pytest.fixture(scope="module")
def engine(repository: Path) -> OnnxEngine:
    return OnnxEngine.open(load_model("d4", repository), "cpu")


def volume_of(shape: tuple[int, ...], dtype: str = "uint8") -> NDArray[Any]:
    return np.random.default_rng(1).integers(0, 256, shape).astype(dtype)


def stream(
    remote: RemoteModel, volume: NDArray[Any], intensity: Intensity, roi: Box, block: Any
) -> NDArray[np.float32]:
    found = np.full(volume.shape, np.nan, np.float32)
    computation = remote.bind(volume, intensity, None)
    for tile in BlockGrid(roi, block):
        for box, probability in computation.run(computation.load(tile)):
            found[box.slices] = probability
    return found[roi.slices]


# Sides that are no stride multiples, thinner than the halo, one pixel wide; blocks that divide nothing.
@pytest.mark.parametrize("shape", [(3, 61, 50), (2, 33, 1), (1, 5, 70), (4, 1, 1)])
@pytest.mark.parametrize("block", [(2, 24, 24), (1, 17, 30)])
@pytest.mark.parametrize("tta", [False, True])
def test_law_5_the_client_gives_the_map_of_predict(
    client: BoundaryClient, engine: OnnxEngine, shape: Any, block: Any, tta: bool
) -> None:
    volume = volume_of(shape)
    remote = RemoteModel(client, client.model("d4"), tta=tta)
    found = stream(remote, volume, INTENSITY, Box.of_shape(shape), block)
    np.testing.assert_allclose(found, predict_array(engine, volume, INTENSITY, tta=tta), atol=1e-5, rtol=0)
    assert remote.device == "cpu"


def test_law_5_holds_in_a_region_of_interest(client: BoundaryClient, engine: OnnxEngine) -> None:
    volume = volume_of((3, 60, 70), "float32")
    roi = Box((1, 7, 13), (3, 41, 66))
    found = stream(RemoteModel(client, client.model()), volume, INTENSITY, roi, (2, 20, 20))
    expected = predict_array(engine, volume, INTENSITY)[roi.slices]
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", ["uint8", "float16"])
def test_smaller_answers_store_the_same_levels(client: BoundaryClient, engine: OnnxEngine, dtype: Any) -> None:
    volume = volume_of((1, 40, 40))
    remote = RemoteModel(client, client.model(), dtype=dtype)
    found = stream(remote, volume, INTENSITY, Box.of_shape(volume.shape), (1, 24, 24))
    exact = predict_array(engine, volume, INTENSITY)
    if dtype == "uint8":
        assert np.abs(np.rint(found * 255) - np.rint(exact * 255)).max() <= 1
        np.testing.assert_array_equal(np.rint(found * np.float32(255)) / np.float32(255), found)
    else:
        np.testing.assert_allclose(found, exact, atol=1e-3, rtol=0)


def test_predict_measures_the_intensity_where_none_is_given(client: BoundaryClient, engine: OnnxEngine) -> None:
    section = volume_of((30, 40), "uint16")
    answer = client.predict(section)
    assert answer.intensity == measure(section[None]).intensity
    np.testing.assert_allclose(
        answer.array, predict_array(engine, section[None], measure(section[None]).intensity)[0], atol=1e-5, rtol=0
    )


def test_other_models_are_named(client: BoundaryClient) -> None:
    section = volume_of((30, 40))
    assert client.model("plain").name == "plain"
    assert np.abs(client.predict(section).array - client.predict(section, model="plain").array).max() > 0.01
    with pytest.raises(RemoteError, match=r"model is 'best'; http://127\.0\.0\.1:\d+ serves d4, plain"):
        client.model("best")


def test_a_refusal_names_what_the_service_said(client: BoundaryClient) -> None:
    with pytest.raises(RemoteError, match=r"answered 422: the image is constant \(every voxel is 7\)"):
        client.predict(np.full((9, 9), 7))


@limits_of(deadline=None, max_examples=200)
@given(
    side=st.integers(1, 5000),
    tile=st.none() | st.integers(1, 3000),
    limit=st.integers(20_000, 1 << 26),
    item=st.sampled_from(["uint8", "uint16", "float64"]),
    depth=st.integers(1, 64),
)
def test_every_planned_tile_is_accepted(
    model_reply: ModelReply, side: int, tile: int | None, limit: int, item: str, depth: int
) -> None:
    limits = model_reply.limits.model_copy(update={"max_body_bytes": limit, "max_computed_voxels": 4 * limit})
    remote = RemoteModel(None, model_reply.model_copy(update={"limits": limits}))  # type: ignore[arg-type]
    try:
        tiling = plan(remote, (100, side, side), item, tile, depth)
    except UsageError:
        assert tile is not None, "the tile that is chosen where none is given must fit"
        return
    tile_box = next(iter(split(Box((0, 3, 3), (100, side + 3, side + 3)), tiling.tile)))
    sent = remote.model.footprint.read_box(tile_box)
    assert sent.voxels * np.dtype(item).itemsize + 128 <= limit
    y, x = (n + 2 * h for n, h in zip(sent.shape[1:], remote.model.footprint.halo[1:], strict=True))
    assert sent.shape[0] * y * x <= 4 * limit


def plan(remote: RemoteModel, shape: Any, dtype: str, tile: int | None, depth: int = 1) -> Tiling:
    unit = (depth, 128, 128)
    return remote.plan(shape, unit, np.dtype(dtype), tile, output_bytes=1, scale=1.0)


@pytest.fixture(scope="module")
def model_reply(url: str) -> ModelReply:
    with BoundaryClient.connect(url) as connected:
        return connected.model()


def test_a_tile_too_large_for_the_service_is_refused_with_one_that_fits(model_reply: ModelReply) -> None:
    remote = RemoteModel(None, model_reply)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"tile is 2000; .* accepts 262144 bytes: give --tile (\d+) or less") as caught:
        plan(remote, (1, 3000, 3000), "uint8", 2000)
    fitting = int(str(caught.value).rpartition("--tile ")[2].split()[0])
    _, y, x = plan(remote, (1, 3000, 3000), "uint8", fitting).tile
    assert y * x > fitting * fitting / 2


class Flaky(httpx.BaseTransport):
    """Fails as it is told, then passes on."""

    def __init__(self, *failures: httpx.Response | httpx.TransportError) -> None:
        self.failures = list(failures)
        self.inner = httpx.HTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if self.failures:
            failure = self.failures.pop(0)
            if isinstance(failure, httpx.TransportError):
                raise failure
            return failure
        return self.inner.handle_request(request)

    def close(self) -> None:
        self.inner.close()


@pytest.fixture
def _no_waiting() -> Iterator[None]:
    with stamina.set_testing(True, attempts=4, cap=True):
        yield


@pytest.mark.usefixtures("_no_waiting")
@pytest.mark.parametrize(
    "failure",
    [
        httpx.Response(429, headers={"Retry-After": "0"}),
        httpx.Response(503),
        httpx.ConnectError("refused"),
        httpx.ReadError("reset"),
        httpx.RemoteProtocolError("cut off"),
    ],
    ids=["429", "503", "refused", "reset", "cut off"],
)
def test_a_busy_or_lost_service_is_asked_again(url: str, failure: Any) -> None:
    transport = Flaky(failure, failure)
    with BoundaryClient(httpx.Client(base_url=url, transport=transport)) as client:
        assert client.predict(volume_of((9, 9))).array.shape == (9, 9)
    assert not transport.failures


@pytest.mark.usefixtures("_no_waiting")
def test_patience_ends(url: str) -> None:
    transport = Flaky(*[httpx.Response(429, json={"title": "t", "status": 429, "detail": "all places are taken"})] * 9)
    client = BoundaryClient(httpx.Client(base_url=url, transport=transport), Patience(attempts=3))
    with client, pytest.raises(RemoteError, match="answered 429: all places are taken"):
        client.predict(volume_of((9, 9)))
    assert len(transport.failures) == 6


def test_a_refused_request_is_not_asked_again(url: str) -> None:
    transport = Flaky(httpx.Response(422), httpx.Response(422))
    client = BoundaryClient(httpx.Client(base_url=url, transport=transport))
    with client, pytest.raises(RemoteError, match=r"answered 422: Unprocessable .* \(no emboundary service\?\)"):
        client.predict(volume_of((9, 9)))
    assert len(transport.failures) == 1


def test_a_service_that_is_not_there_is_named_at_once() -> None:
    with (
        BoundaryClient.connect("http://127.0.0.1:9") as client,
        pytest.raises(RemoteError, match=r"^http://127\.0\.0\.1:9 cannot be reached \(.*\); start it with `emboundary"),
    ):
        client.models()


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://host", "http://", "http://a:b:c", ""])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(RemoteError, match=r"url is .*give it as http://HOST:PORT"):
        BoundaryClient.connect(url)


def test_another_service_is_recognised(url: str) -> None:
    transport = Flaky(httpx.Response(200, text="<html>"))
    with (
        BoundaryClient(httpx.Client(base_url=url, transport=transport)) as client,
        pytest.raises(RemoteError, match="gave an answer that is not an emboundary service's"),
    ):
        client.models()


@pytest.mark.usefixtures("_no_waiting")
def test_a_service_that_stays_away_is_named_in_the_end(
    settings: Settings, running: Callable[[FastAPI], AbstractContextManager[str]]
) -> None:
    with running(create_app(settings)) as url:
        client = BoundaryClient.connect(url)
        client.predict(volume_of((9, 9)))
    with client, pytest.raises(RemoteError, match="cannot be reached"):
        client.predict(volume_of((9, 9)))
