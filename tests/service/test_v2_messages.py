from __future__ import annotations

import json
from typing import Any

import pytest

from emboundary.service.codecs.errors import MalformedBodyError
from emboundary.service.v2.messages import IndexRequest, InferRequest, LoadRequest, UnloadRequest, read_message

IMAGE: dict[str, Any] = {"name": "image", "shape": [2, 3], "datatype": "UINT8"}


def request(**changes: Any) -> bytes:
    return json.dumps({"inputs": [IMAGE | {"data": [1, 2, 3, 4, 5, 6]}]} | changes).encode()


def test_voxels_stay_the_text_that_they_are() -> None:
    (image,) = read_message(request(), InferRequest).inputs
    assert bytes(image.data) == b"[1, 2, 3, 4, 5, 6]"
    assert image.shape == (2, 3)


def test_what_is_left_out_has_its_default() -> None:
    read = read_message(request(parameters={}), InferRequest)
    assert read.id is read.outputs is None
    assert read.parameters is not None
    assert (read.parameters.dtype, read.parameters.tta, read.parameters.timeout) == ("float32", False, 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"model_name": "d4"},  # KServe's client
        {"id": None, "parameters": None, "outputs": None},  # MLServer's types, as they are dumped
        {"parameters": {"content_type": "np", "headers": None}},
        {"inputs": [IMAGE | {"parameters": {"content_type": "np", "headers": None}, "data": [1]}]},
        {"parameters": {"binary_data_output": True}},  # Triton's client
        {"outputs": []},
    ],
)
def test_what_standard_clients_add_is_read(changes: dict[str, Any]) -> None:
    assert read_message(request(**changes), InferRequest).inputs[0].name == "image"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "Input data was truncated"),
        (b"{", "Input data was truncated"),
        (b"[]", "Expected `object`, got `array`"),
        (b"\xff", "invalid character"),
        (b'{"id": "\xff"}', "can't decode byte 0xff"),
        (b'{"inputs": ' + b"[" * 100_000, "Expected `object`, got `array` - at `$.inputs[0]`"),
        (b'{"inputs": [{"data": ' + b"[" * 100_000, "maximum recursion depth exceeded"),
        (b'{"inputs": [{"data": [1, NaN]}]}', "JSON is malformed: invalid character"),
        (b'{"inputs": [{"data": [Infinity]}]}', "JSON is malformed: invalid character"),
        (b'{"inputs": [{"data": [01]}]}', "JSON is malformed: invalid number"),
        (request(inputs=[]), "length >= 1 - at `$.inputs`"),
        (request(inputs=[IMAGE, IMAGE]), "length <= 1 - at `$.inputs`"),
        (request(inputs=[IMAGE | {"shape": [6]}]), "length >= 2 - at `$.inputs[0].shape`"),
        (request(inputs=[IMAGE | {"shape": [1, 1, 1, 2, 3]}]), "length <= 4 - at `$.inputs[0].shape`"),
        (request(inputs=[IMAGE | {"shape": [0, 6]}]), "`int` >= 1 - at `$.inputs[0].shape[0]`"),
        (request(inputs=[IMAGE | {"shape": [2.0, 3]}]), "Expected `int`, got `float` - at `$.inputs[0].shape[0]`"),
        (
            request(inputs=[IMAGE | {"shape": [2, 5]}]).replace(b"5]", b"5" * 5000 + b"]"),
            "Integer value out of range - at `$.inputs[0].shape[1]`",
        ),
        (request(inputs=[IMAGE | {"shape": [2, 10**30]}]), "`int` <= 2147483648 - at `$.inputs[0].shape[1]`"),
        (request(inputs=[IMAGE | {"datatype": "BF16"}]), "Invalid enum value 'BF16' - at `$.inputs[0].datatype`"),
        (request(inputs=[{"name": "image", "shape": [2, 3]}]), "missing required field `datatype`"),
        (request(inputs=[IMAGE | {"parameters": {"shared_memory_region": "r"}}]), "field `shared_memory_region`"),
        (request(outputs=[{"name": "probability", "parameters": {"classification": 3}}]), "field `classification`"),
        (request(parameters={"priority": 1}), "unknown field `priority` - at `$.parameters`"),
        (request(parameters={"sequence_id": 1}), "unknown field `sequence_id`"),
        (request(parameters={"dtype": "float64"}), "Invalid enum value 'float64' - at `$.parameters.dtype`"),
        (request(parameters={"tta": 1}), "Expected `bool`, got `int` - at `$.parameters.tta`"),
        (request(parameters={"timeout": -1}), "`int` >= 0 - at `$.parameters.timeout`"),
        (request(parameters={"timeout": 1.5}), "Expected `int"),
        (request(parameters={"intensity": [1, 2]}), "Expected `str"),
        (request(parameters={"content_type": "pd"}), "Invalid enum value 'pd'"),
        (request(surprise=1), "unknown field `surprise`"),
        (request(id=7), "Expected `str | null`, got `int` - at `$.id`"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(content: bytes, said: str) -> None:
    with pytest.raises(MalformedBodyError) as caught:
        read_message(content, InferRequest)
    assert str(caught.value).startswith("the request's JSON cannot be read: ")
    assert said in str(caught.value)
    assert str(caught.value).endswith("; GET /docs shows what it may hold")


def test_an_error_is_short_and_printable_whatever_was_sent() -> None:
    with pytest.raises(MalformedBodyError) as caught:
        read_message(request(**{"a\n\x1b[31m" + "b" * 100_000: 1}), InferRequest)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


def test_what_tritons_client_sends_to_the_repository_is_read() -> None:
    assert read_message(b"{}", IndexRequest) == IndexRequest(ready=False)
    assert read_message(b"{}", LoadRequest) == LoadRequest()
    assert read_message(b'{"parameters":{"unload_dependents":true}}', UnloadRequest).parameters is not None


def test_a_model_cannot_be_loaded_from_the_request() -> None:
    with pytest.raises(MalformedBodyError, match=r"unknown field `file:1/model\.onnx`"):
        read_message(b'{"parameters": {"file:1/model.onnx": "AAAA"}}', LoadRequest)
