from __future__ import annotations

import gzip
import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emboundary.model.repository import load_model
from emboundary.service.codecs.errors import TooLargeError
from emboundary.service.preparing.intensity import Intensity
from emboundary.service.schemas import Limits
from emboundary.service.v2.asking import LENGTH_HEADER, Asked, read_question, write_answer

LIMITS = Limits(max_body_bytes=1 << 12, max_computed_voxels=1 << 16, queue_tiles=9, request_timeout_s=9, tile=24)
IMAGE = {"name": "image", "shape": [2, 1, 3, 2], "datatype": "INT16", "data": list(range(12))}


@pytest.fixture
def ask(repository: Path) -> Any:
    description = load_model("d4", repository).description

    def read(**changes: Any) -> Asked:
        return read_question(json.dumps({"inputs": [IMAGE]} | changes).encode(), {}, description, LIMITS)

    return read


def test_an_image_keeps_its_shape_and_values(ask: Any) -> None:
    asked = ask(parameters={"intensity": "3,4"})
    assert asked.shape == (2, 1, 3, 2)
    assert asked.intensity == Intensity(3, 4)
    np.testing.assert_array_equal(asked.image, np.arange(12, dtype=np.int16).reshape(2, 3, 2))


@pytest.mark.parametrize(("timeout", "seconds"), [(None, None), (0, None), (1, 1e-6), (2_500_000, 2.5)])
def test_the_timeout_comes_in_microseconds(ask: Any, timeout: int | None, seconds: float | None) -> None:
    assert ask(parameters={} if timeout is None else {"timeout": timeout}).timeout_s == seconds


@pytest.mark.parametrize("of_request", [None, False, True])
@pytest.mark.parametrize("of_output", [None, False, True])
def test_the_output_says_before_the_request_how_it_is_sent(
    ask: Any, of_request: bool | None, of_output: bool | None
) -> None:
    asked = ask(
        parameters=None if of_request is None else {"binary_data_output": of_request},
        outputs=[{"name": "probability", "parameters": None if of_output is None else {"binary_data": of_output}}],
    )
    assert asked.binary is bool(of_request if of_output is None else of_output)


def test_an_image_that_costs_too_much_is_refused(ask: Any) -> None:
    with pytest.raises(TooLargeError, match="voxels computed, its halo included; at most 65536 are accepted"):
        ask(inputs=[IMAGE | {"shape": [170, 1, 1, 1], "data": list(range(170))}])
    with pytest.raises(TooLargeError, match=r"input image of shape \[1, 10000000\] and datatype FP64 holds 80000000"):
        ask(inputs=[IMAGE | {"shape": [1, 10_000_000], "datatype": "FP64"}])


@pytest.mark.parametrize("binary", [True, False])
def test_an_answer_is_whole_whatever_the_maps_layout(ask: Any, repository: Path, binary: bool) -> None:
    asked = ask(parameters={"binary_data_output": binary})
    stored = np.arange(12, dtype=np.float32).reshape(2, 1, 2, 3).swapaxes(2, 3)
    content, length = write_answer(asked, stored, load_model("d4", repository).description, "cpu")
    (output,) = json.loads(content[:length])["outputs"]
    assert output["shape"] == [2, 1, 3, 2]
    values = np.frombuffer(content[length:], "<f4") if binary else np.array(output["data"])
    np.testing.assert_array_equal(values.reshape(output["shape"]), stored)
    assert ("data" in output) is not binary


@pytest.mark.parametrize("binary", [True, False])
def test_only_the_image_is_kept_of_a_request(repository: Path, binary: bool) -> None:
    image = IMAGE | {"shape": [1, 60, 50], "datatype": "UINT8"}
    data = bytes(range(250)) * 12
    image |= {"parameters": {"binary_data_size": 3000}, "data": None} if binary else {"data": list(data)}
    head = json.dumps({"inputs": [image], "parameters": {"binary_data_output": True}}).encode() + b" " * 300_000
    body = gzip.compress(head + data if binary else head)
    headers = {"content-encoding": "gzip"} | ({LENGTH_HEADER.lower(): str(len(head))} if binary else {})
    limits = LIMITS.model_copy(update={"max_body_bytes": len(head) + 3000})
    description = load_model("d4", repository).description
    tracemalloc.start()
    asked = read_question(body, headers, description, limits)
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert asked.shape == (1, 60, 50)
    assert kept < 100_000
