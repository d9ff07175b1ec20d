"""``d4`` always means ``d4-small``: wherever the service is given a model's name, both are one model."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from fastapi import FastAPI

from emboundary.service.app import create_app
from emboundary.service.client import BoundaryClient
from emboundary.service.errors import RemoteError
from emboundary.service.preparing.intensity import Intensity
from emboundary.service.settings import Settings

SECTION = np.random.default_rng(0).integers(0, 200, (40, 48)).astype(np.uint8)


def test_both_names_are_one_model_over_rest(url: str) -> None:
    with httpx.Client(base_url=url) as http:
        short, long = (http.get(f"/v1/models/{name}").json() for name in ("d4", "d4-small"))
        assert (short, short["name"]) == (long, "d4")
        assert [model["name"] for model in http.get("/v1/models").json()["models"]] == ["d4", "plain"]
        assert http.get("/v1/models/d5-small").status_code == 404


def test_the_client_finds_both_names(url: str) -> None:
    with BoundaryClient.connect(url) as client:
        names, intensity = ("plain", "plain-small"), Intensity(90.0, 50.0)
        short, long = (client.predict(SECTION, model=name, intensity=intensity) for name in names)
        assert (short.model, long.model) == ("plain", "plain")
        np.testing.assert_array_equal(short.array, long.array)
        assert client.model("plain-small").name == "plain"
        assert client.model().name == "d4"
        with pytest.raises(RemoteError, match="d5-small"):
            client.model("d5-small")


def test_tritons_client_finds_both_names(url: str) -> None:
    with triton.InferenceServerClient(url.removeprefix("http://")) as client:
        assert client.is_model_ready("d4-small")
        assert client.get_model_metadata("d4-small") == client.get_model_metadata("d4")
        image = triton.InferInput("image", list(SECTION.shape), "UINT8")
        image.set_data_from_numpy(SECTION)
        short, long = (client.infer(name, [image]).as_numpy("probability") for name in ("d4", "d4-small"))
        np.testing.assert_array_equal(short, long)


def test_the_json_of_a_request_may_bear_either_name(url: str) -> None:
    voxels = {"name": "image", "shape": list(SECTION.shape), "datatype": "UINT8", "data": SECTION.ravel().tolist()}
    for name in ("d4", "d4-small"):
        answer = httpx.post(f"{url}/v2/models/d4-small/infer", json={"model_name": name, "inputs": [voxels]})
        assert answer.status_code == 200, answer.text
    other = httpx.post(f"{url}/v2/models/d4/infer", json={"model_name": "plain-small", "inputs": [voxels]})
    assert other.status_code == 400


def test_loading_and_unloading_take_either_name(
    settings: Settings, running: Callable[[FastAPI], AbstractContextManager[str]]
) -> None:
    with running(create_app(settings)) as url, httpx.Client(base_url=f"{url}/v2/repository") as http:
        assert http.post("/models/plain-small/unload").status_code == 200
        assert [entry["state"] for entry in http.post("/index").json()] == ["READY", "UNAVAILABLE"]
        assert http.post("/models/plain-small/load").status_code == 200
        assert [(e["name"], e["state"]) for e in http.post("/index").json()] == [("d4", "READY"), ("plain", "READY")]
        assert http.post("/models/d4-small/unload").status_code in (400, 409)
