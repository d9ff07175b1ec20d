"""The Open Inference Protocol v2 as clients see it: tritonclient as it is, and plain HTTP."""

from __future__ import annotations

import asyncio
import gzip
import json
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from fastapi import FastAPI
from numpy.typing import NDArray
from pydantic import SecretStr
from tritonclient.utils import InferenceServerException

from emboundary.model.repository import load_model
from emboundary.service.app import create_app
from emboundary.service.engine import OnnxEngine
from emboundary.service.preparing.intensity import Intensity, measure
from emboundary.service.probabilities import to_stored
from emboundary.service.run.inference import predict_array
from emboundary.service.security.keys import new_key
from emboundary.service.settings import Settings
from emboundary.service.state import ServiceState

Running = Callable[[FastAPI], AbstractContextManager[str]]
INFER = "/v2/models/d4/infer"
LENGTH = "Inference-Header-Content-Length"
DATATYPES = {"uint8": "UINT8", "uint16": "UINT16", "int32": "INT32", "float16": "FP16", "float32": "FP32"}


@pytest.fixture(scope="module")
def http(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[triton.InferenceServerClient]:
    with connect(url) as found:
        yield found


@pytest.fixture(scope="module")
def engine(repository: Path) -> OnnxEngine:
    return OnnxEngine.open(load_model("d4", repository), "cpu")


@pytest.fixture(scope="module")
def stack() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 200, (3, 41, 50)).astype(np.uint8)


@pytest.fixture
def service(settings: Settings, running: Running) -> Callable[..., AbstractContextManager[str]]:
    """Run a service of one's own, with other settings."""
    return lambda **update: running(create_app(settings.model_copy(update=update)))


def connect(url: str) -> triton.InferenceServerClient:
    return triton.InferenceServerClient(url.removeprefix("http://"))


def tensor(array: NDArray[Any], *, binary: bool = True, name: str = "image") -> triton.InferInput:
    found = triton.InferInput(name, list(array.shape), DATATYPES[array.dtype.name])
    return found.set_data_from_numpy(array, binary_data=binary)


def question(array: NDArray[Any], **changes: Any) -> dict[str, Any]:
    image = {"name": "image", "shape": array.shape, "datatype": DATATYPES[array.dtype.name], "data": array.tolist()}
    return {"inputs": [image]} | changes


def refusal(response: httpx.Response, status: int) -> str:
    """The message of an error, having checked that it is one as the protocol wants it."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    document = response.json()
    assert set(document) == {"error"}
    assert document["error"].isprintable()
    return str(document["error"])


@pytest.mark.parametrize("dtype", DATATYPES)
@pytest.mark.parametrize("shape", [(41, 50), (3, 41, 50), (3, 1, 41, 50)], ids=len)
@pytest.mark.parametrize("sent", [True, False], ids=["bytes", "json"])
@pytest.mark.parametrize("answered", [True, False], ids=["bytes", "json"])
def test_tritons_client_gets_the_map_that_predict_gives(
    client: triton.InferenceServerClient,
    engine: OnnxEngine,
    stack: NDArray[np.uint8],
    dtype: str,
    shape: tuple[int, ...],
    sent: bool,
    answered: bool,
) -> None:
    image = stack[: shape[0] if len(shape) > 2 else 1].astype(dtype)
    asked = [triton.InferRequestedOutput("probability", binary_data=answered)]
    found = client.infer("d4", [tensor(image.reshape(shape), binary=sent)], outputs=asked).as_numpy("probability")
    expected = predict_array(engine, image, measure(image).intensity)
    assert found.dtype == np.float32
    assert found.shape == shape
    np.testing.assert_allclose(found.reshape(image.shape), expected, atol=1e-6)


def test_v1_and_v2_give_the_same_bytes(
    client: triton.InferenceServerClient, http: httpx.Client, stack: NDArray[np.uint8], tmp_path: Path
) -> None:
    np.save(tmp_path / "stack.npy", stack)
    first = http.post(
        "/v1/predict?dtype=float32",
        content=(tmp_path / "stack.npy").read_bytes(),
        headers={"Content-Type": "application/x-npy"},
    )
    found = client.infer("d4", [tensor(stack)]).as_numpy("probability")
    assert first.content.endswith(found.tobytes())


@pytest.mark.parametrize(("dtype", "datatype"), [("uint8", "UINT8"), ("float16", "FP16"), ("float32", "FP32")])
@pytest.mark.parametrize("binary", [True, False])
def test_the_map_comes_in_the_type_that_was_asked_for(
    http: httpx.Client, engine: OnnxEngine, stack: NDArray[np.uint8], dtype: Any, datatype: str, binary: bool
) -> None:
    parameters = {"dtype": dtype, "tta": True, "intensity": "100,40", "binary_data_output": binary}
    response = http.post(INFER, json=question(stack, parameters=parameters)).raise_for_status()
    length = int(response.headers.get(LENGTH, len(response.content)))
    reply = json.loads(response.content[:length])
    (output,) = reply["outputs"]
    assert (output["datatype"], output["shape"], output["name"]) == (datatype, list(stack.shape), "probability")
    expected = to_stored(predict_array(engine, stack, Intensity(100, 40), tta=True), dtype)
    if binary:
        assert output["parameters"] == {"binary_data_size": expected.nbytes}
        found = np.frombuffer(response.content[length:], dtype).reshape(stack.shape)
    else:
        assert LENGTH not in response.headers
        assert response.headers["content-type"] == "application/json"
        found = np.array(output["data"], dtype).reshape(stack.shape)
    np.testing.assert_allclose(found.astype(float), expected.astype(float), atol=1 if dtype == "uint8" else 1e-3)


def test_the_answer_says_what_it_was_computed_by(
    http: httpx.Client, repository: Path, stack: NDArray[np.uint8]
) -> None:
    response = http.post(INFER, json=question(stack, id="7"))
    reply = response.json()
    measured = str(measure(stack).intensity)
    sha256 = load_model("d4", repository).description.sha256
    assert (reply["model_name"], reply["model_version"], reply["id"]) == ("d4", "1", "7")
    assert reply["parameters"] == {"intensity": measured, "model_sha256": sha256, "device": "cpu"}
    assert {part.split(";")[0] for part in response.headers["server-timing"].split(", ")} == {
        *("queue", "decode", "compute", "encode")
    }
    assert "id" not in http.post(INFER, json=question(stack)).json()
    again = http.post(INFER, json=question(stack, parameters={"intensity": measured})).json()
    assert again["outputs"] == reply["outputs"]


def test_flat_nested_and_binary_voxels_are_the_same_image(http: httpx.Client, stack: NDArray[np.uint8]) -> None:
    nested = question(stack)
    flat = question(stack)
    flat["inputs"][0]["data"] = stack.reshape(-1).tolist()
    behind = question(stack)
    del behind["inputs"][0]["data"]
    behind["inputs"][0]["parameters"] = {"binary_data_size": stack.nbytes}
    head = json.dumps(behind).encode()
    answers = [
        http.post(INFER, json=nested),
        http.post(INFER, json=flat),
        http.post(INFER, content=head + stack.tobytes(), headers={LENGTH: str(len(head))}),
    ]
    assert len({answer.raise_for_status().text for answer in answers}) == 1


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_tritons_client_may_compress_what_it_sends(
    client: triton.InferenceServerClient, stack: NDArray[np.uint8], algorithm: str
) -> None:
    plain = client.infer("d4", [tensor(stack)], response_compression_algorithm=algorithm)
    packed = client.infer("d4", [tensor(stack)], request_compression_algorithm=algorithm)
    np.testing.assert_array_equal(packed.as_numpy("probability"), plain.as_numpy("probability"))


def test_tritons_asynchronous_client_works_too(url: str, stack: NDArray[np.uint8]) -> None:
    async def ask() -> tuple[str, NDArray[Any]]:
        async with triton_aio.InferenceServerClient(url.removeprefix("http://")) as client:
            result = await client.infer("d4", [tensor(stack)], model_version="1", request_id="9")
            assert result.get_response()["id"] == "9"
            return (await client.get_model_metadata("d4"))["name"], result.as_numpy("probability")

    name, found = asyncio.run(ask())
    assert name == "d4"
    assert found.shape == stack.shape


def test_tritons_client_may_send_many_at_a_time(url: str, stack: NDArray[np.uint8], engine: OnnxEngine) -> None:
    with triton.InferenceServerClient(url.removeprefix("http://"), concurrency=6) as client:
        waiting = [client.async_infer("d4", [tensor(stack[n % 3][None])], request_id=str(n)) for n in range(12)]
        for n, answer in enumerate(waiting):
            result = answer.get_result()
            section = stack[n % 3][None]
            assert result.get_response()["id"] == str(n)
            np.testing.assert_allclose(
                result.as_numpy("probability"), predict_array(engine, section, measure(section).intensity), atol=1e-6
            )


def test_health_and_metadata_are_what_tritons_client_expects(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("plain")
    assert client.is_model_ready("plain", "1")
    assert not client.is_model_ready("plain", "2")
    assert not client.is_model_ready("d5")
    server = client.get_server_metadata()
    assert server["name"] == "emboundary"
    assert {"binary_tensor_data", "model_repository"} <= set(server["extensions"])
    tensors = {"datatype": "FP32", "shape": [-1, 1, -1, -1]}
    expected = {
        "name": "plain",
        "versions": ["1"],
        "platform": "onnx_onnxv1",
        "inputs": [{"name": "image", **tensors}],
        "outputs": [{"name": "probability", **tensors}],
    }
    assert client.get_model_metadata("plain") == client.get_model_metadata("plain", "1") == expected
    config = client.get_model_config("plain")
    assert config == client.get_model_config("plain", "1")
    assert (config["name"], config["max_batch_size"]) == ("plain", 0)
    assert config["input"] == [{"name": "image", "data_type": "TYPE_FP32", "dims": [-1, 1, -1, -1]}]
    assert config["output"] == [{"name": "probability", "data_type": "TYPE_FP32", "dims": [-1, 1, -1, -1]}]


def test_health_says_what_kserves_client_reads(http: httpx.Client) -> None:
    assert http.get("/v2/health/live").json() == {"live": True}
    assert http.get("/v2/health/ready").json() == {"ready": True}
    assert http.get("/v2/models/d4/ready").json() == {"name": "d4", "ready": True}


def test_models_are_found_by_version(client: triton.InferenceServerClient, stack: NDArray[np.uint8]) -> None:
    newest = client.infer("plain", [tensor(stack)]).as_numpy("probability")
    first = client.infer("plain", [tensor(stack)], model_version="1").as_numpy("probability")
    np.testing.assert_array_equal(first, newest)
    with pytest.raises(InferenceServerException, match=r"\[404\] version of model plain is '2'; served here are 1"):
        client.infer("plain", [tensor(stack)], model_version="2")
    with pytest.raises(InferenceServerException, match=r"\[404\] model is 'd5'; served here are d4, plain"):
        client.infer("d5", [tensor(stack)])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"priority": 2}, "unknown field `priority`"),
        ({"sequence_id": 3}, "unknown field `sequence_id`"),
        ({"parameters": {"tiling": "7"}}, "unknown field `tiling`"),
        ({"parameters": {"dtype": "uint16"}}, "Invalid enum value 'uint16'"),
        ({"parameters": {"intensity": "128"}}, "intensity is '128'; it must be two numbers MEAN,STD"),
        ({"parameters": {"intensity": "128,0"}}, "intensity is 128,0; the mean must be finite"),
        ({"outputs": [triton.InferRequestedOutput("labels")]}, "the output is 'labels'; this model's is 'probability'"),
        ({"outputs": [triton.InferRequestedOutput("probability", class_count=2)]}, "unknown field `classification`"),
        ({"query_params": {"tta": "true"}}, "query parameter 'tta' is unknown; give parameters in the JSON"),
    ],
)
def test_what_would_be_passed_over_is_refused(
    client: triton.InferenceServerClient, stack: NDArray[np.uint8], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(InferenceServerException) as caught:
        client.infer("d4", [tensor(stack)], **options)
    assert caught.value.status() == "400"
    assert said in caught.value.message()


def test_tensors_that_are_no_image_are_refused(client: triton.InferenceServerClient, stack: NDArray[np.uint8]) -> None:
    noisy = stack.astype(np.float32)
    noisy[1, 2, 3] = np.nan
    for asked, said in (
        ([tensor(stack, name="picture")], "the input is 'picture'; this model's is 'image'"),
        ([tensor(stack), tensor(stack)], "Expected `array` of length <= 1 - at `$.inputs`"),
        ([tensor(stack[:, None].repeat(3, 1))], "images have one channel: [z, 1, y, x]"),
        ([tensor(noisy)], "the volume holds nan at voxel (z, y, x) = (1, 2, 3)"),
        ([tensor(noisy, binary=False)], "JSON is malformed: invalid character"),
        ([tensor(np.zeros((4, 4), np.uint8))], "the image is constant"),
        ([triton.InferInput("image", [4, 4], "FP32")], "has neither data and the parameter binary_data_size"),
        ([triton.InferInput("image", [1], "BYTES").set_data_from_numpy(np.array([b"x"], object))], "length >= 2"),
    ):
        with pytest.raises(InferenceServerException) as caught:
            client.infer("d4", asked)
        assert caught.value.status() == "400"
        assert said in caught.value.message()


@pytest.mark.parametrize(
    ("content", "headers", "status", "said"),
    [
        (b"", {}, 400, "the request's JSON cannot be read: Input data was truncated"),
        (b"null", {}, 400, "Expected `object`, got `null`"),
        (b"\x89PNG\r\n\x1a\n", {}, 400, "JSON is malformed: invalid character (byte 0)"),
        (b'{"inputs": [{"data": ' + b"[" * 100_000, {}, 400, "maximum recursion depth exceeded"),
        (b"{}", {LENGTH: "3"}, 400, f"{LENGTH} is 3; it must be the length in bytes of the JSON that the body, of 2"),
        (b"{}", {LENGTH: "0"}, 400, f"{LENGTH} is 0; it must be"),
        (b"{}", {LENGTH: "-1"}, 400, f"{LENGTH} is -1; it must be"),
        (b"{}", {LENGTH: "9" * 5000}, 400, "it must be the length in bytes of the JSON"),
        (b"{}", {LENGTH: "two"}, 400, f"{LENGTH} is two; it must be"),
        (b"{}", {"Content-Encoding": "br"}, 415, "Content-Encoding is br; it must be gzip, deflate or left out"),
        (b"{}", {"Content-Encoding": "gzip"}, 400, "the body is not gzip, as Content-Encoding says"),
        (zlib.compress(b"{}")[:-1], {"Content-Encoding": "deflate"}, 400, "the body is not one whole deflate stream"),
        (gzip.compress(b"{}", mtime=0) * 2, {"Content-Encoding": "gzip"}, 400, "the body is not one whole gzip stream"),
        (
            gzip.compress(bytes(1 << 19), mtime=0),
            {"Content-Encoding": "gzip"},
            413,
            "holds 262145 bytes once decompressed",
        ),
        (bytes((1 << 18) + 1), {}, 413, "the body has 262145 bytes; at most 262144 are accepted"),
    ],
)
def test_bodies_that_are_no_request_are_refused(
    http: httpx.Client, content: bytes, headers: dict[str, str], status: int, said: str
) -> None:
    assert said in refusal(http.post(INFER, content=content, headers=headers), status)


def test_another_models_name_in_the_json_is_refused(http: httpx.Client, stack: NDArray[np.uint8]) -> None:
    assert http.post(INFER, json=question(stack, model_name="d4")).status_code == 200
    said = refusal(http.post(INFER, json=question(stack, model_name="plain")), 400)
    assert "model_name is 'plain'; this model's is 'd4'" in said


def test_an_answer_too_long_for_json_is_refused_before_it_is_computed(
    http: httpx.Client, client: triton.InferenceServerClient
) -> None:
    image = np.random.default_rng(1).integers(0, 9, (110, 110)).astype(np.uint8)
    assert "takes up to 290400 bytes as JSON, and at most 262144 are sent" in refusal(
        http.post(INFER, json=question(image)), 413
    )
    assert client.infer("d4", [tensor(image, binary=False)]).as_numpy("probability").shape == (110, 110)


def test_a_client_that_waits_a_microsecond_gets_no_map(
    client: triton.InferenceServerClient, stack: NDArray[np.uint8]
) -> None:
    with pytest.raises(InferenceServerException) as caught:
        client.infer("d4", [tensor(stack)], timeout=1)
    assert caught.value.status() in ("413", "504")
    for patient in (0, 10_000_000, 2**62):
        assert client.infer("d4", [tensor(stack)], timeout=patient).as_numpy("probability").shape == stack.shape


def test_every_error_below_v2_has_the_protocols_shape(http: httpx.Client) -> None:
    assert "/v2/nothing is not served here" in refusal(http.get("/v2/nothing"), 404)
    assert "/v2/models/d4/infer does not take GET" in refusal(http.get(INFER), 405)
    assert "/v2/models/../d4 is not served here" in refusal(http.get("/v2/models/..%2Fd4"), 404)
    assert "model is '..'; served here are d4, plain" in refusal(http.get("/v2/models/%2E%2E"), 404)


def test_a_full_or_stopping_service_answers_in_the_protocols_shape(
    settings: Settings, running: Running, stack: NDArray[np.uint8]
) -> None:
    app = create_app(settings.model_copy(update={"queue_bytes": 1 << 18}))
    state = app.state.service
    assert isinstance(state, ServiceState)
    with running(app) as url:
        with state.memory.share() as share:
            share.take(1 << 18)
            response = httpx.post(url + INFER, json=question(stack))
            assert "requests hold 262144 bytes of memory" in refusal(response, 429)
            assert response.headers["retry-after"] == "1"
        state.drain()
        assert "is shutting down" in refusal(httpx.post(url + INFER, json=question(stack)), 503)
        assert "is shutting down" in refusal(httpx.get(url + "/v2/health/ready"), 503)
        refusal(httpx.get(url + "/v2/models/d4/ready"), 503)
        with connect(url) as client:
            assert client.is_server_live()
            assert not client.is_server_ready()
            assert not client.is_model_ready("d4")


def test_keys_guard_all_but_health(
    service: Callable[..., AbstractContextManager[str]], stack: NDArray[np.uint8]
) -> None:
    user, user_key = new_key("user", frozenset({"predict"}))
    admin, admin_key = new_key("admin", frozenset({"admin"}))
    with service(api_keys=SecretStr(f"{user_key.line},{admin_key.line}")) as url, connect(url) as client:
        may_predict, may_change = ({"Authorization": f"Bearer {secret}"} for secret in (user, admin))
        assert client.is_server_ready()
        assert not client.is_model_ready("d4")
        assert client.is_model_ready("d4", headers=may_predict)
        assert "needs an API key" in refusal(httpx.get(url + "/v2"), 401)
        assert "needs an API key" in refusal(httpx.post(url + INFER, json=question(stack)), 401)
        assert client.infer("d4", [tensor(stack)], headers=may_predict).as_numpy("probability").shape == stack.shape
        with pytest.raises(InferenceServerException, match=r"\[403\] key 'admin' has scope admin; this call needs"):
            client.infer("d4", [tensor(stack)], headers=may_change)
        for call in (client.get_model_repository_index, lambda headers: client.load_model("plain", headers)):
            with pytest.raises(InferenceServerException, match=r"\[403\] key 'user' has scope predict; this call"):
                call(may_predict)
            call(may_change)


def test_tritons_client_loads_and_unloads_models(
    service: Callable[..., AbstractContextManager[str]],
    repository: Path,
    tmp_path: Path,
    stack: NDArray[np.uint8],
) -> None:
    shutil.copytree(repository, tmp_path / "models")
    ready = {"state": "READY", "reason": ""}
    with service(repository=tmp_path / "models") as url, connect(url) as client:
        assert client.get_model_repository_index() == [
            {"name": "d4", "version": "1", **ready},
            {"name": "plain", "version": "1", **ready},
        ]
        client.unload_model("plain")
        gone = {"name": "plain", "version": "1", "state": "UNAVAILABLE", "reason": "unloaded"}
        assert gone in client.get_model_repository_index()
        listed = httpx.post(url + "/v2/repository/index", json={"ready": True}).json()
        assert [model["name"] for model in listed] == ["d4"]
        assert not client.is_model_ready("plain")
        with pytest.raises(InferenceServerException, match=r"\[404\] model is 'plain'"):
            client.infer("plain", [tensor(stack)])
        client.load_model("plain")
        assert client.infer("plain", [tensor(stack)]).as_numpy("probability").shape == stack.shape

        with pytest.raises(InferenceServerException, match=r"\[409\] model d4 is the default one and stays"):
            client.unload_model("d4")
        with pytest.raises(InferenceServerException, match=r"\[404\] model is 'd5'; the repository holds d4, plain"):
            client.load_model("d5")
        with pytest.raises(InferenceServerException, match=r"\[400\] .* unknown field `config` - at `\$.parameters`"):
            client.load_model("plain", config="{}")

        (tmp_path / "models" / "plain" / "1" / "model.onnx").write_bytes(b"damaged")
        with pytest.raises(InferenceServerException, match=r"\[400\] model plain cannot be served \(version 1: "):
            client.load_model("plain")
        assert client.infer("plain", [tensor(stack)]).as_numpy("probability").shape == stack.shape


def test_the_documents_example_is_answered_like_its_example(http: httpx.Client) -> None:
    operation = http.get("/openapi.json").json()["paths"]["/v2/models/{name}/infer"]["post"]
    asked = operation["requestBody"]["content"]["application/json"]["example"]
    shown = operation["responses"]["200"]["content"]["application/json"]["example"]
    reply = http.post(INFER, json=asked).raise_for_status().json()
    assert list(reply) == list(shown)
    assert list(reply["outputs"][0]) == list(shown["outputs"][0])
    assert list(reply["parameters"]) == list(shown["parameters"])
    same = ("id", "model_name", "model_version")
    assert [reply[key] for key in same] == [shown[key] for key in same]
