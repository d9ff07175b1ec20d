from __future__ import annotations

import asyncio
import contextlib
import http.client as http_client
import io
import json
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import imagecodecs
import numpy as np
import pytest
import tifffile
from fastapi import FastAPI
from hypothesis import given
from hypothesis import settings as limits_of
from hypothesis import strategies as st
from numpy.typing import NDArray

from emboundary.model.description import ModelDescription
from emboundary.model.repository import load_model
from emboundary.service.app import create_app
from emboundary.service.codecs import MediaType, decode, encode
from emboundary.service.engine import OnnxEngine
from emboundary.service.errors import DeviceError, ModelUnavailableError
from emboundary.service.preparing.intensity import measure
from emboundary.service.run.inference import predict_array
from emboundary.service.settings import Settings
from emboundary.service.visits.reply import Reply

NPY = {"Content-Type": "application/x-npy"}
Running = Callable[[FastAPI], AbstractContextManager[str]]


@pytest.fixture(scope="module")
def http(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def stack() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (3, 50, 61)).astype(np.uint8)


def npy(array: NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def problem(response: httpx.Response, status: int) -> str:
    """The detail of a problem document, having checked that it is one."""
    assert response.headers["content-type"] == "application/problem+json"
    document = response.json()
    assert response.status_code == document["status"] == status
    assert set(document) == {"type", "title", "status", "detail"}
    assert "\n" not in document["detail"]
    return str(document["detail"])


@pytest.mark.parametrize("media", list(MediaType))
@pytest.mark.parametrize("answered", list(MediaType))
def test_every_type_comes_in_and_goes_out(
    http: httpx.Client, repository: Path, stack: NDArray[np.uint8], media: MediaType, answered: MediaType
) -> None:
    image = stack[0]
    response = http.post(
        "/v1/predict", content=encode(image, media), headers={"Content-Type": media, "Accept": answered}
    )
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == answered
    engine = OnnxEngine.open(load_model("d4", repository), "cpu")
    expected = np.rint(255 * predict_array(engine, image[None], measure(image[None]).intensity)[0])
    np.testing.assert_allclose(decode(response.content, answered, limit=1 << 20), expected, atol=1)


def test_the_headers_say_what_was_done(http: httpx.Client, repository: Path, stack: NDArray[np.uint8]) -> None:
    headers = http.post("/v1/predict", params={"model": "plain"}, content=npy(stack), headers=NPY).headers
    description = load_model("plain", repository).description
    measured = measure(stack).intensity
    assert headers["x-emboundary-intensity"] == f"{measured.mean!r},{measured.std!r}"
    assert headers["x-emboundary-model"] == "plain"
    assert headers["x-emboundary-model-version"] == "1"
    assert headers["x-emboundary-model-sha256"] == description.sha256
    assert headers["x-emboundary-device"] == "cpu"
    assert [part.split(";")[0] for part in headers["server-timing"].split(", ")] == [
        *("queue", "decode", "compute", "encode")
    ]


def test_the_intensity_that_came_back_gives_the_same_map(http: httpx.Client, stack: NDArray[np.uint8]) -> None:
    first = http.post("/v1/predict", content=npy(stack), headers=NPY)
    params = {"intensity": first.headers["x-emboundary-intensity"]}
    assert http.post("/v1/predict", params=params, content=npy(stack), headers=NPY).content == first.content


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
def test_probabilities_come_in_the_type_that_was_asked_for(
    http: httpx.Client, stack: NDArray[np.uint8], dtype: str
) -> None:
    params = {"dtype": dtype, "tta": "true"}
    found = decode(
        http.post("/v1/predict", params=params, content=npy(stack), headers=NPY).content, MediaType.NPY, limit=1 << 20
    )
    assert found.dtype == dtype
    assert found.shape == stack.shape
    exact = http.post("/v1/predict", params=params | {"dtype": "float32"}, content=npy(stack), headers=NPY).content
    reference = decode(exact, MediaType.NPY, limit=1 << 20)
    scale = 255 if dtype == "uint8" else 1
    np.testing.assert_allclose(found / scale, reference, atol=0.5 / 255 if dtype == "uint8" else 1e-3)


def test_a_larger_image_is_tiled_inside(
    settings: Settings, running: Running, http: httpx.Client, stack: NDArray[np.uint8]
) -> None:
    params = {"dtype": "float32"}
    tiled = http.post("/v1/predict", params=params, content=npy(stack), headers=NPY)
    with running(create_app(settings.model_copy(update={"tile": 512}))) as url:
        whole = httpx.post(f"{url}/v1/predict", params=params, content=npy(stack), headers=NPY)
    difference = decode(tiled.content, MediaType.NPY, limit=1 << 20) - decode(
        whole.content, MediaType.NPY, limit=1 << 20
    )
    assert np.abs(difference).max() <= 1e-5


def test_a_one_pixel_image_is_mapped_at_a_given_intensity(http: httpx.Client) -> None:
    response = http.post("/v1/predict?intensity=0,1", content=npy(np.ones((1, 1), np.uint8)), headers=NPY)
    assert decode(response.content, MediaType.NPY, limit=99).shape == (1, 1)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, "image/tiff"),
        ("*/*", "image/tiff"),
        ("image/*", "image/tiff"),
        ("application/*", "application/x-npy"),
        ("image/png", "image/png"),
        ("image/png;q=0.3, application/x-npy;q=0.8", "application/x-npy"),
        ("image/*;q=0.9, image/tiff;q=0.1", "image/png"),
        ("*/*;q=0.1, image/tiff;q=0", "application/x-npy"),
        ("text/html, IMAGE/PNG ; q=0.5, image/tiff;q=oops", "image/png"),
    ],
)
def test_accept_is_negotiated(http: httpx.Client, stack: NDArray[np.uint8], accept: str | None, expected: str) -> None:
    request = http.build_request(
        "POST", "/v1/predict", content=encode(stack[0], MediaType.TIFF), headers={"Content-Type": "image/tiff"}
    )
    del request.headers["accept"]
    if accept is not None:
        request.headers["accept"] = accept
    assert http.send(request).headers["content-type"] == expected


def test_an_answer_that_nobody_accepts_is_406(http: httpx.Client, stack: NDArray[np.uint8]) -> None:
    for accept in ("text/html", "image/jpeg, application/json", "image/png;q=0", ";;q=,"):
        response = http.post("/v1/predict", content=npy(stack), headers=NPY | {"Accept": accept})
        assert f"Accept is {accept}; it must allow one of application/x-npy, image/" in problem(response, 406)


@pytest.mark.parametrize("content_type", [None, "image/jpeg", "application/octet-stream", "nonsense"])
def test_another_content_type_is_415(http: httpx.Client, content_type: str | None) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    detail = problem(http.post("/v1/predict", content=b"x", headers=headers), 415)
    assert f"Content-Type is {content_type or 'missing'}; it must be one of application/x-npy" in detail


def test_a_compressed_transport_is_415(http: httpx.Client, stack: NDArray[np.uint8]) -> None:
    response = http.post("/v1/predict", content=npy(stack), headers=NPY | {"Content-Encoding": "gzip"})
    assert problem(response, 415).startswith("Content-Encoding is gzip; bodies must come as they are")


@pytest.mark.parametrize(
    ("params", "status", "message"),
    [
        ({"tile": "99"}, 422, "query parameter 'tile' is unknown; leave it out"),
        ({"TTA": "true"}, 422, "query parameter 'TTA' is unknown"),
        ({"dtype": "int8"}, 422, "query parameter dtype is 'int8': Input should be 'uint8', 'float16' or 'float32'"),
        ({"tta": "maybe"}, 422, "query parameter tta is 'maybe': Input should be a valid boolean"),
        ({"axes": "xyz"}, 422, "query parameter axes is 'xyz': Input should be 'yx' or 'zyx'"),
        ({"axes": "yx"}, 422, "axes is yx but the image has shape (3, 50, 61)"),
        ({"intensity": "12"}, 422, "intensity is '12'; it must be two numbers MEAN,STD"),
        ({"intensity": "12,0"}, 422, "standard deviation finite and above 0"),
        ({"intensity": "nan,1"}, 422, "the mean must be finite"),
        ({"intensity": "0,1e-300"}, 422, "voxel values become too large for float32"),
        ({"model": "best"}, 404, "model is 'best'; served here are d4, plain (GET /v1/models)"),
        ({"model": "../../etc/passwd"}, 404, "model is '../../etc/passwd'; served here are d4"),
        ({"model": ""}, 404, "model is ''; served here are d4"),
    ],
)
def test_bad_parameters_are_named(
    http: httpx.Client, stack: NDArray[np.uint8], params: dict[str, str], status: int, message: str
) -> None:
    assert message in problem(http.post("/v1/predict", params=params, content=npy(stack), headers=NPY), status)


with_nan = np.ones((2, 5, 7), np.float32)
with_nan[1, 2, 3] = np.nan


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (with_nan, "(z, y, x) = (1, 2, 3); every value must be finite"),
        (np.where(np.isnan(with_nan), np.inf, 0), "holds inf at voxel (z, y, x) = (1, 2, 3)"),
        (np.full((5, 7), 9, np.uint8), "the image is constant (every voxel is 9), so it has no contrast"),
        (np.zeros((2, 2, 5, 7)), "shape (2, 2, 5, 7) with axes ????; it must be one grey section (y, x)"),
        (np.zeros((9, 9, 3), np.uint8), "axes yxs"),
        (np.zeros((9, 9), complex), "complex128 values; they must be integers or floats"),
        (np.zeros((0, 9)), "every axis must have at least 1 voxel"),
        (np.array([[1e300, 0.0]]), "values run from 0 to 1e+300"),
    ],
)
def test_bad_images_are_422(http: httpx.Client, array: NDArray[Any], message: str) -> None:
    assert message in problem(http.post("/v1/predict", content=npy(array), headers=NPY), 422)


def test_nan_is_found_at_a_given_intensity_too(http: httpx.Client) -> None:
    response = http.post("/v1/predict?intensity=0,1", content=npy(with_nan), headers=NPY)
    assert "holds nan at voxel (z, y, x) = (1, 2, 3)" in problem(response, 422)


def test_colour_is_422_in_every_type(http: httpx.Client) -> None:
    colour = np.random.default_rng(0).integers(0, 256, (9, 9, 3)).astype(np.uint8)
    stream = io.BytesIO()
    tifffile.imwrite(stream, colour, photometric="rgb")
    for body, media in ((imagecodecs.png_encode(colour), "image/png"), (stream.getvalue(), "image/tiff")):
        assert "is RGB with" in problem(http.post("/v1/predict", content=body, headers={"Content-Type": media}), 422)


def test_truncated_and_empty_bodies_are_400(http: httpx.Client, stack: NDArray[np.uint8]) -> None:
    assert "the body is empty (0 bytes)" in problem(http.post("/v1/predict", content=b"", headers=NPY), 400)
    truncated = http.post("/v1/predict", content=npy(stack)[:-9], headers=NPY)
    assert "its header promises 9150" in problem(truncated, 400)


def test_floats_do_not_fit_a_png(http: httpx.Client, stack: NDArray[np.uint8]) -> None:
    body, headers = imagecodecs.png_encode(stack[0]), {"Content-Type": "image/png"}
    response = http.post("/v1/predict?dtype=float32", content=body, headers=headers)
    assert "ask for dtype=uint8, or for application/x-npy or image/tiff in Accept" in problem(response, 422)


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "chunked"])
def test_a_large_body_is_413_before_it_is_read(http: httpx.Client, declared: bool) -> None:
    content: Any = bytes(1 << 19) if declared else (bytes(1 << 16) for _ in range(8))
    response = http.post("/v1/predict", content=content, headers=NPY)
    assert "at most 262144 are accepted (GET /v1/models)" in problem(response, 413)


def test_a_client_that_sends_all_of_a_large_body_reads_why_it_was_refused(url: str) -> None:
    connection = http_client.HTTPConnection(url.removeprefix("http://"), timeout=30)
    with contextlib.closing(connection):
        connection.request("POST", "/v1/predict", bytes(1 << 24), NPY)
        response = connection.getresponse()
        assert response.status == json.loads(response.read())["status"] == 413
        connection.request("GET", "/health/live")
        assert connection.getresponse().status == 200


def test_a_body_that_is_large_once_decompressed_is_413(http: httpx.Client) -> None:
    body = encode(np.zeros((9, 512, 512), np.uint8), MediaType.TIFF)
    response = http.post("/v1/predict", content=body, headers={"Content-Type": "image/tiff"})
    assert "holds 2359296 bytes once decompressed; at most 262144" in problem(response, 413)


def test_many_thin_sections_are_413(http: httpx.Client) -> None:
    body = npy(np.arange(200_000, dtype=np.uint8).reshape(-1, 1, 1))
    response = http.post("/v1/predict", content=body, headers=NPY)
    assert "needs 80000000 voxels computed, its halo included; at most 1048576" in problem(response, 413)


def test_a_body_that_does_not_arrive_is_408(settings: Settings, running: Running) -> None:
    with running(create_app(settings.model_copy(update={"body_timeout_s": 0.05}))) as url:
        host, _, port = url.removeprefix("http://").partition(":")
        connection = http_client.HTTPConnection(host, int(port), timeout=10)
        connection.putrequest("POST", "/v1/predict")
        connection.putheader("Content-Type", "application/x-npy")
        connection.putheader("Content-Length", "1000")
        connection.endheaders(b"\x93NUMPY")
        response = connection.getresponse()
        document = json.loads(response.read())
        connection.close()
    assert response.status == document["status"] == 408
    assert document["detail"].startswith("6 bytes of the body arrived within 0.05 s, and it was not complete")


def test_unknown_paths_and_methods_are_problems_too(http: httpx.Client) -> None:
    assert problem(http.get("/v1/nothing"), 404) == "/v1/nothing is not served here; GET /docs lists what is"
    assert problem(http.get("/v1/predict"), 405).startswith("/v1/predict does not take GET")
    assert http.get("/v1/predict").headers["allow"] == "POST"


def test_models_are_described_with_the_limits_in_force(http: httpx.Client, repository: Path) -> None:
    listed = http.get("/v1/models").json()
    assert listed["default"] == "d4"
    assert [m["name"] for m in listed["models"]] == ["d4", "plain"]
    one = http.get("/v1/models/plain").json()
    assert one == listed["models"][1]
    limits = one.pop("limits")
    assert one.pop("versions") == ["1"]
    assert limits == {
        "max_body_bytes": 262144,
        "max_computed_voxels": 1048576,
        "queue_tiles": 512,
        "request_timeout_s": 30.0,
        "tile": 24,
        "precision": "float32",
    }
    assert ModelDescription.model_validate(one) == load_model("plain", repository).description
    assert "model is 'best'; served here are d4, plain" in problem(http.get("/v1/models/best"), 404)


def test_health_and_docs(http: httpx.Client) -> None:
    assert http.get("/health/live").json() == {"status": "live"}
    assert http.get("/health/ready").json() == {"status": "ready", "model": "d4", "device": "cpu"}
    assert http.get("/docs").status_code == 200
    described = http.get("/openapi.json").json()["paths"]["/v1/predict"]["post"]
    assert set(described["requestBody"]["content"]) == set(described["responses"]["200"]["content"]) == set(MediaType)
    assert set(described["responses"]["413"]["content"]) == {"application/problem+json"}


def test_ready_only_after_a_real_inference(settings: Settings) -> None:
    app = create_app(settings)

    async def ask() -> list[int]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            before = await client.get("/health/ready")
            assert before.headers["retry-after"] == "1"
            async with app.router.lifespan_context(app):
                during = await client.get("/health/ready")
            return [before.status_code, during.status_code, (await client.get("/health/ready")).status_code]

    assert asyncio.run(ask()) == [503, 200, 503]


class Gate:
    """Holds every batch before the network until it is opened; counts what went in."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shapes: list[tuple[int, ...]] = []
        self.reached, self.open = threading.Semaphore(0), threading.Event()
        real = OnnxEngine.run

        def held(engine: OnnxEngine, images: NDArray[np.float32]) -> NDArray[np.float32]:
            self.shapes.append(images.shape)
            self.reached.release()
            assert self.open.wait(30)
            return real(engine, images)

        monkeypatch.setattr(OnnxEngine, "run", held)

    def occupied(self) -> bool:
        """Wait until a batch is in the network."""
        return self.reached.acquire(timeout=30)


@pytest.fixture
def square() -> bytes:
    return npy(np.eye(9, dtype=np.uint8))


def waiting(app: FastAPI, tiles: int) -> None:
    """Return when so many tiles wait."""
    while app.state.service.scheduler.waiting_tiles != tiles:
        threading.Event().wait(0.005)


@pytest.mark.parametrize("capacity", [1, 5])
def test_one_runs_k_wait_and_exactly_the_two_that_are_too_many_are_refused(
    settings: Settings, running: Running, monkeypatch: pytest.MonkeyPatch, square: bytes, capacity: int
) -> None:
    app = create_app(settings.model_copy(update={"queue_tiles": capacity}))
    with running(app) as url, ThreadPoolExecutor(capacity + 3) as pool:
        expected = httpx.post(f"{url}/v1/predict", content=square, headers=NPY).content
        gate = Gate(monkeypatch)

        def ask() -> httpx.Response:
            return httpx.post(f"{url}/v1/predict", content=square, headers=NPY, timeout=30)

        first = pool.submit(ask)
        assert gate.occupied()
        others = [pool.submit(ask) for _ in range(capacity + 2)]
        while sum(future.done() for future in others) < 2:
            threading.Event().wait(0.005)
        waiting(app, capacity)
        refused = [future.result() for future in others if future.done()]
        gate.open.set()
        answers = [first.result(), *(future.result() for future in others)]
    assert sorted(answer.status_code for answer in answers) == [200] * (capacity + 1) + [429] * 2
    assert all(answer.content == expected for answer in answers if answer.status_code == 200)
    for response in refused:
        assert int(response.headers["retry-after"]) >= 1
        assert f"{capacity} tiles wait, this image is 1 more, and at most {capacity} may wait" in problem(response, 429)


def test_tiles_of_different_requests_share_a_batch(
    settings: Settings, running: Running, monkeypatch: pytest.MonkeyPatch, square: bytes
) -> None:
    app = create_app(settings)
    with running(app) as url, ThreadPoolExecutor(4) as pool:
        gate = Gate(monkeypatch)
        first = pool.submit(httpx.post, f"{url}/v1/predict", content=square, headers=NPY, timeout=30)
        assert gate.occupied()
        others = [
            pool.submit(httpx.post, f"{url}/v1/predict", content=square, headers=NPY, timeout=30) for _ in range(3)
        ]
        waiting(app, 3)
        gate.open.set()
        assert {future.result().status_code for future in (first, *others)} == {200}
    assert [shape[0] for shape in gate.shapes] == [1, 3]


def test_a_client_that_left_frees_its_place_and_nothing_is_computed_for_it(
    settings: Settings, running: Running, monkeypatch: pytest.MonkeyPatch, square: bytes
) -> None:
    app = create_app(settings)
    with running(app) as url, ThreadPoolExecutor(1) as pool:
        gate = Gate(monkeypatch)
        first = pool.submit(httpx.post, f"{url}/v1/predict", content=square, headers=NPY, timeout=30)
        assert gate.occupied()
        with pytest.raises(httpx.ReadTimeout):  # waits behind the first, and leaves
            httpx.post(f"{url}/v1/predict", content=square, headers=NPY, timeout=0.3)
        waiting(app, 0)
        gate.open.set()
        assert first.result().status_code == 200
    assert len(gate.shapes) == 1
    assert app.state.service.memory.used == 0


def test_a_request_past_its_deadline_is_504_and_never_computed(
    settings: Settings, running: Running, monkeypatch: pytest.MonkeyPatch, square: bytes
) -> None:
    with running(create_app(settings)) as url, ThreadPoolExecutor(1) as pool:
        gate = Gate(monkeypatch)
        first = pool.submit(httpx.post, f"{url}/v1/predict", content=square, headers=NPY, timeout=30)
        assert gate.occupied()
        late = httpx.post(f"{url}/v1/predict", params={"timeout_s": "0.2"}, content=square, headers=NPY)
        assert "ran out before it was computed" in problem(late, 504)
        gate.open.set()
        assert first.result().status_code == 200
    assert len(gate.shapes) == 1


def test_what_can_never_be_in_time_is_413_at_once_and_names_jobs(
    settings: Settings, running: Running, square: bytes
) -> None:
    with running(create_app(settings)) as url:
        refused = httpx.post(f"{url}/v1/predict", params={"timeout_s": "0.0000001"}, content=square, headers=NPY)
    assert "POST /v1/jobs" in problem(refused, 413)


def test_more_tiles_than_may_ever_wait_are_413(settings: Settings, running: Running, stack: NDArray[np.uint8]) -> None:
    with running(create_app(settings.model_copy(update={"queue_tiles": 2}))) as url:
        refused = httpx.post(f"{url}/v1/predict", content=npy(stack), headers=NPY)
    assert "of which at most 2 may wait at a time" in problem(refused, 413)


def test_what_does_not_fit_into_memory_is_refused_before_it_is_received(
    settings: Settings, running: Running, monkeypatch: pytest.MonkeyPatch, square: bytes
) -> None:
    app = create_app(settings.model_copy(update={"queue_bytes": 1000}))
    with running(app) as url, ThreadPoolExecutor(1) as pool:
        never = httpx.post(f"{url}/v1/predict", content=npy(np.zeros((64, 64))), headers=NPY)
        assert "all requests together have 1000" in problem(never, 413)
        gate = Gate(monkeypatch)
        first = pool.submit(httpx.post, f"{url}/v1/predict", content=square, headers=NPY, timeout=30)
        assert gate.occupied()
        not_now = httpx.post(f"{url}/v1/predict", content=npy(np.zeros((9, 9))), headers=NPY)
        assert "at most 1000 are used" in problem(not_now, 429)
        assert not_now.headers["retry-after"] == "1"
        gate.open.set()
        assert first.result().status_code == 200


def test_an_answer_that_nobody_takes_counts_until_its_client_is_cut_off(
    settings: Settings, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    sending = threading.Event()
    real = Reply.__call__

    async def noted(reply: Reply, *args: Any) -> None:
        sending.set()
        await real(reply, *args)

    monkeypatch.setattr(Reply, "__call__", noted)
    app = create_app(settings.model_copy(update={"body_timeout_s": 1.0, "max_body_bytes": 1 << 25, "tile": 1024}))
    body = npy(np.random.default_rng(0).integers(0, 256, (2048, 2048)).astype(np.uint8))
    memory = app.state.service.memory
    with running(app) as url, socket.create_connection(("127.0.0.1", httpx.URL(url).port or 0)) as lazy:
        head = "POST /v1/predict?dtype=float32 HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-npy\r\n"
        lazy.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        assert sending.wait(30)
        assert memory.used > 16 << 20  # more than what the system takes off our hands
        for _ in range(600):
            if not memory.used:
                break
            threading.Event().wait(0.05)
        assert memory.used == 0
        lazy.settimeout(30)
        taken = 0
        while part := lazy.recv(1 << 20):
            taken += len(part)
        assert 0 < taken < 16 << 20


def test_one_request_that_fails_in_a_batch_harms_no_other(
    settings: Settings, running: Running, monkeypatch: pytest.MonkeyPatch, square: bytes
) -> None:
    app = create_app(settings)
    huge = npy(np.full((9, 9), 1e300))
    with running(app) as url, ThreadPoolExecutor(4) as pool:
        gate = Gate(monkeypatch)
        first = pool.submit(httpx.post, f"{url}/v1/predict", content=square, headers=NPY, timeout=30)
        assert gate.occupied()
        params = {"intensity": "0,1"}
        good, bad = (
            pool.submit(httpx.post, f"{url}/v1/predict", params=params, content=body, headers=NPY, timeout=30)
            for body in (square, huge)
        )
        waiting(app, 2)
        gate.open.set()
        assert (first.result().status_code, good.result().status_code) == (200, 200)
        assert "too large for float32" in problem(bad.result(), 422)
    assert gate.shapes[1][0] == 2


def test_work_in_progress_ends_well_while_new_work_is_refused(
    settings: Settings, running: Running, monkeypatch: pytest.MonkeyPatch, square: bytes
) -> None:
    app = create_app(settings)
    with running(app) as url, ThreadPoolExecutor(1) as pool, httpx.Client(base_url=url) as alive:
        assert alive.get("/health/ready").status_code == 200
        gate = Gate(monkeypatch)
        first = pool.submit(httpx.post, f"{url}/v1/predict", content=square, headers=NPY, timeout=30)
        assert gate.occupied()
        app.state.service.drain()
        assert problem(alive.post("/v1/predict", content=square, headers=NPY), 503)
        assert problem(alive.get("/health/ready"), 503)
        assert alive.get("/health/live").status_code == 200
        gate.open.set()
        assert first.result().status_code == 200


def test_what_has_not_begun_when_the_time_to_end_is_over_is_told_so(
    settings: Settings, running: Running, monkeypatch: pytest.MonkeyPatch, square: bytes
) -> None:
    app = create_app(settings.model_copy(update={"drain_s": 0}))
    with running(app) as url, ThreadPoolExecutor(2) as pool:
        gate = Gate(monkeypatch)
        first = pool.submit(httpx.post, f"{url}/v1/predict", content=square, headers=NPY, timeout=30)
        assert gate.occupied()
        second = pool.submit(httpx.post, f"{url}/v1/predict", content=square, headers=NPY, timeout=30)
        waiting(app, 1)
        app.state.service.drain()
        refused = second.result()
        assert "the service stops" in problem(refused, 503)
        assert refused.headers["retry-after"] == "1"
        gate.open.set()
        assert first.result().status_code == 200


def test_ready_says_no_when_the_network_fails(
    settings: Settings, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise DeviceError("cpu failed")

    monkeypatch.setattr("emboundary.service.routes.health._PROOF_LASTS_S", -1.0)
    with running(create_app(settings)) as url:
        assert httpx.get(f"{url}/health/ready").status_code == 200
        monkeypatch.setattr(OnnxEngine, "run", broken)
        assert "cpu failed" in problem(httpx.get(f"{url}/health/ready"), 503)


TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30)


@pytest.mark.filterwarnings("ignore")  # of codecs, about damaged images
@limits_of(max_examples=100, deadline=None, derandomize=True)
@given(
    params=st.dictionaries(
        st.sampled_from(["model", "tta", "dtype", "intensity", "axes", "x"]) | TEXT, TEXT, max_size=3
    ),
    headers=st.dictionaries(st.sampled_from(["Accept", "Content-Encoding", "X-Other"]), TEXT, max_size=2),
    media=st.sampled_from(list(MediaType)) | TEXT,
    sent_as=st.sampled_from(list(MediaType)),
    damage=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=4),
)
def test_no_request_is_answered_with_a_defect(
    http: httpx.Client,
    params: dict[str, str],
    headers: dict[str, str],
    media: str,
    sent_as: MediaType,
    damage: list[tuple[int, int]],
) -> None:
    body = bytearray(encode(np.eye(9, dtype=np.uint8), sent_as))
    for place, value in damage:
        body[place % len(body)] = value
    headers = {name: value.strip() for name, value in headers.items()}
    response = http.post(
        "/v1/predict", params=params, content=bytes(body), headers=headers | {"Content-Type": media.strip()}
    )
    assert response.status_code < 500, response.text
    if response.status_code != 200:
        problem(response, response.status_code)


def test_a_defect_is_500_and_tells_nothing(
    settings: Settings, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def defect(*_: Any, **__: Any) -> None:
        raise RuntimeError("secret")

    with running(create_app(settings)) as url:
        monkeypatch.setattr("emboundary.service.routes.predict.settle", defect)
        response = httpx.post(f"{url}/v1/predict", content=npy(np.eye(9)), headers=NPY)
    assert "secret" not in problem(response, 500)


def test_an_unknown_default_model_stops_the_start(settings: Settings) -> None:
    with pytest.raises(ModelUnavailableError, match="model 'best' not found"):
        create_app(settings.model_copy(update={"model": "best"}))
