"""Law 5 for models that see each section amid its neighbours: one answer, whichever way a volume comes."""

from __future__ import annotations

import hashlib
import io
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
import tifffile
from fastapi import FastAPI
from hypothesis import given
from hypothesis import settings as limits_of
from hypothesis import strategies as st
from numpy.typing import NDArray
from rich.console import Console

from emboundary.model.description import METADATA_KEY
from emboundary.model.geometry import BlockGrid, Box, Footprint, neighbours
from emboundary.model.repository import load_model
from emboundary.service.app import close, create_app, create_state, warm_up
from emboundary.service.checking.estimate import time_tile
from emboundary.service.client import BoundaryClient, JobSubmission
from emboundary.service.client.streaming import RemoteModel
from emboundary.service.engine import IdentityEngine, OnnxEngine, Part
from emboundary.service.errors import ModelUnavailableError, UsageError
from emboundary.service.preparing.intensity import Intensity
from emboundary.service.progress import QuietReporter
from emboundary.service.run.inference import predict_array
from emboundary.service.run.parts import image_of
from emboundary.service.run.prediction import make_map
from emboundary.service.run.request import MapRequest
from emboundary.service.run.tiling import Tiling, split
from emboundary.service.schemas import ModelReply
from emboundary.service.settings import Settings

INTENSITY = Intensity(120.0, 40.0)
NAMES = ("d4", "deep")  # with one, and with two, neighbours on each side
Running = Callable[[FastAPI], AbstractContextManager[str]]


def noise(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(shape).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def seeing(settings: Settings, repository_with_context: Path, data: Path, tmp_path_factory: Any) -> Settings:
    """The settings of the other tests, with the networks that see neighbours."""
    places = {"data_roots": (data,), "state_dir": tmp_path_factory.mktemp("state")}
    return settings.model_copy(update={"repository": repository_with_context, **places})


@pytest.fixture(scope="module")
def url(seeing: Settings, running: Running) -> Iterator[str]:
    with running(create_app(seeing)) as address:
        yield address


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[BoundaryClient]:
    with BoundaryClient.connect(url) as connected:
        yield connected


@pytest.fixture(scope="module")
def engines(repository_with_context: Path) -> dict[str, OnnxEngine]:
    return {name: OnnxEngine.open(load_model(name, repository_with_context), "cpu") for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(6, 61, 50), (2, 9, 30), (1, 33, 20)])
@pytest.mark.parametrize("block", [(2, 24, 24), (1, 17, 30), (4, 61, 50)])
def test_the_client_sends_the_sections_around_a_block(
    client: BoundaryClient, engines: dict[str, OnnxEngine], name: str, shape: Any, block: Any
) -> None:
    """Up to where the volume ends, which the service then reflects: volumes thinner than the context among them."""
    volume = noise(*shape)
    found = np.full(shape, np.nan, np.float32)
    computation = RemoteModel(client, client.model(name)).bind(volume, INTENSITY, None)
    for tile in BlockGrid(Box.of_shape(shape), block):
        for box, probability in computation.run(computation.load(tile)):
            found[box.slices] = probability
    np.testing.assert_allclose(found, predict_array(engines[name], volume, INTENSITY), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("tta", [False, True])
def test_one_request_of_each_kind_gives_the_map_of_predict(
    client: BoundaryClient, engines: dict[str, OnnxEngine], url: str, name: str, tta: bool
) -> None:
    volume = noise(5, 41, 50)
    expected = predict_array(engines[name], volume, INTENSITY, tta=tta)
    answer = client.predict(volume, model=name, tta=tta, dtype="float32", intensity=INTENSITY)
    np.testing.assert_allclose(answer.array, expected, atol=1e-5, rtol=0)
    question = {
        "inputs": [{"name": "image", "shape": [5, 1, 41, 50], "datatype": "UINT8", "data": volume.ravel().tolist()}],
        "parameters": {"intensity": str(INTENSITY), "dtype": "float32", "tta": tta},
    }
    (output,) = httpx.post(f"{url}/v2/models/{name}/infer", json=question, timeout=60).json()["outputs"]
    found = np.array(output["data"], np.float32).reshape(volume.shape)
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)


def test_a_single_section_is_its_own_neighbour(client: BoundaryClient, engines: dict[str, OnnxEngine]) -> None:
    section = noise(30, 40)
    answer = client.predict(section, model="deep", dtype="float32", intensity=INTENSITY)
    expected = predict_array(engines["deep"], np.stack([section] * 3), INTENSITY)[1]
    np.testing.assert_allclose(answer.array, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("roi", [None, "3:5,10:50,20:61"])
def test_a_volume_through_the_client_and_as_a_job_gives_the_map_of_predict(
    client: BoundaryClient, engines: dict[str, OnnxEngine], data: Path, roi: str | None
) -> None:
    volume = noise(9, 70, 90)
    stem = "whole" if roi is None else "part"
    tifffile.imwrite(data / f"{stem}.tif", volume, photometric="minisblack")
    part = (slice(3, 5), slice(10, 50), slice(20, 61)) if roi else (slice(None),) * 3
    expected = predict_array(engines["deep"], volume, INTENSITY)[part]

    streamed = data / f"{stem}_streamed.tif"
    request = MapRequest(
        str(data / f"{stem}.tif"), streamed, roi=roi, tile=24, chunk=(2, 32, 32), intensity=INTENSITY, dtype="float32"
    )
    quiet = QuietReporter(Console(file=io.StringIO(), quiet=True))
    make_map(request, RemoteModel(client, client.model("deep")), quiet)
    np.testing.assert_allclose(tifffile.imread(streamed), expected, atol=1e-5, rtol=0)

    done = data / f"{stem}_job.tif"
    job = client.submit(
        JobSubmission(
            input=str(data / f"{stem}.tif"),
            output=str(done),
            model="deep",
            roi=roi,
            chunk="2,32,32",
            intensity=str(INTENSITY),
            dtype="float32",
        )
    )
    *_, last = client.follow(job.id)
    assert last.state == "succeeded", last
    np.testing.assert_allclose(tifffile.imread(done), expected, atol=1e-5, rtol=0)


def test_models_say_how_many_neighbours_they_see(client: BoundaryClient, url: str) -> None:
    assert [client.model(name).context for name in NAMES] == [1, 2]
    asked = httpx.get(f"{url}/v2/models/deep").json()
    # consecutive sections stand in the first axis of an image; their neighbours are found there
    assert asked["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 1, -1, -1]}]


def test_every_shape_is_warmed_up(settings: Settings, repository_with_context: Path) -> None:
    state = create_state(settings.model_copy(update={"repository": repository_with_context}))
    try:
        warm_up(state)
        assert state.models.find("d4", None).opened is not None
    finally:
        close(state)


def test_the_identity_gives_the_section_in_the_middle() -> None:
    engine = IdentityEngine(Footprint((2, 8, 8), (1, 4, 4)))
    array = np.linspace(0, 1, 5 * 13 * 9, dtype=np.float32).reshape(5, 13, 9)
    np.testing.assert_array_equal(predict_array(engine, array, Intensity(0.0, 1.0), tile=8), array)


@pytest.fixture(scope="module")
def described(client: BoundaryClient) -> ModelReply:
    return client.model("deep")


@limits_of(deadline=None, max_examples=100)
@given(
    shape=st.tuples(st.integers(1, 60), st.integers(1, 5000), st.integers(1, 5000)),
    tile=st.none() | st.integers(1, 3000),
    limit=st.integers(40_000, 1 << 26),
    item=st.sampled_from(["uint8", "uint16", "float64"]),
    depth=st.integers(1, 64),
    context=st.integers(1, 4),
)
def test_every_planned_body_is_accepted_with_the_sections_around_it(
    described: ModelReply, shape: Any, tile: int | None, limit: int, item: str, depth: int, context: int
) -> None:
    limits = described.limits.model_copy(update={"max_body_bytes": limit, "max_computed_voxels": 4 * limit})
    _, y, x = described.halo
    update = {"limits": limits, "halo": (context, y, x), "receptive_field_radius": (context, 3, 3)}
    remote = RemoteModel(None, described.model_copy(update=update))  # type: ignore[arg-type]
    try:
        tiling = remote.plan(shape, (depth, 128, 128), np.dtype(item), tile, output_bytes=1, scale=1.0)
    except UsageError:
        assert tile is not None or limit < 20_000 * (2 * context + 1), "the tile that is chosen must fit"
        return
    whole = Box((9, 3, 3), (shape[0] + 9, shape[1] + 3, shape[2] + 3))
    sent = remote.footprint.read_box(next(iter(split(whole, tiling.tile))))
    assert sent.voxels * np.dtype(item).itemsize + 128 <= limit
    y, x = (n + 2 * h for n, h in zip(sent.shape[1:], remote.footprint.halo[1:], strict=True))
    assert sent.shape[0] * y * x <= 4 * limit


def test_bodies_are_deep_enough_that_most_of_what_is_computed_is_kept(described: ModelReply) -> None:
    """Limits as a service with the default settings states them, and a footprint like that of the bundled models."""
    limits = described.limits.model_copy(
        update={"max_body_bytes": 1 << 26, "max_computed_voxels": 1 << 28, "tile": 896}
    )
    update = {"limits": limits, "halo": (1, 40, 40), "stride": (1, 8, 8)}
    remote = RemoteModel(None, described.model_copy(update=update))  # type: ignore[arg-type]
    tiling = remote.plan((300, 9000, 9000), (16, 128, 128), np.dtype("uint8"), None, output_bytes=1, scale=1.0)
    z, y, x = tiling.tile
    assert z >= 4
    assert (z + 2) * (y + 160) * (x + 160) < 1.5 * (1 << 22)


def test_a_tile_too_large_with_its_neighbours_is_refused_with_one_that_fits(described: ModelReply) -> None:
    remote = RemoteModel(None, described)  # type: ignore[arg-type]
    with pytest.raises(
        UsageError, match=r"tile is 2000; .* sent as 5x2016x2016 pixels of uint8, .*: give --tile (\d+) or less"
    ) as caught:
        remote.plan((9, 3000, 3000), (1, 128, 128), np.dtype("uint8"), 2000, output_bytes=1, scale=1.0)
    fitting = int(str(caught.value).rpartition("--tile ")[2].split()[0])
    z, y, x = remote.plan((9, 3000, 3000), (1, 128, 128), np.dtype("uint8"), fitting, output_bytes=1, scale=1.0).tile
    assert z == 1
    assert y * x > fitting * fitting / 2


def test_tiles_stay_within_their_memory_with_the_sections_around_them() -> None:
    alone, amid = (
        Tiling.plan((999, 9000, 9000), (64, 64, 64), Footprint((c, 48, 48), (1, 8, 8)), input_bytes=8) for c in (0, 3)
    )
    assert amid.block == alone.block
    assert amid.tile[1:] == alone.tile[1:]
    assert amid.tile[0] == max(1, alone.tile[0] - 6)


@pytest.mark.parametrize("sections", [1, 3])
def test_images_of_single_sections_are_not_copied(sections: int) -> None:
    raw = np.random.default_rng(0).random((sections, 8, 12), np.float32)
    images = image_of(Part(neighbours(raw, 0), 0.0, 1.0, slice(None), slice(None)))
    assert images.shape == (sections, 1, 8, 12)
    assert images.flags.c_contiguous
    assert np.shares_memory(images, raw)


def test_what_a_tile_costs_is_counted_in_sections_of_the_map(engines: dict[str, OnnxEngine]) -> None:
    """Its neighbours are channels, and no images of their own."""
    engine, volume = engines["deep"], noise(9, 40, 40)
    whole = Box.of_shape((9, 40, 40))
    timed = time_tile(
        engine, volume, whole, (4, 20, 20), (3, 40, 40), INTENSITY, tta=False, clock=time.perf_counter, seconds=60
    )
    assert timed.write == (3, 40, 40)
    _, y, x = engine.footprint.read_box(whole).shape
    assert timed.pixels == 3 * y * x


def test_a_description_that_does_not_know_of_the_neighbours_is_refused(
    repository_with_context: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "d4" / "1"
    shutil.copytree(repository_with_context / "d4" / "1", folder)
    described = load_model(folder).description
    _, y, x = described.halo
    blind = described.model_copy(update={"halo": (0, y, x), "receptive_field_radius": (0, 3, 3), "sha256": None})
    model = onnx.load(folder / "model.onnx")
    onnx.helper.set_model_props(model, {METADATA_KEY: blind.model_dump_json()})
    content = model.SerializeToString()
    (folder / "model.onnx").write_bytes(content)
    told = blind.model_copy(update={"sha256": hashlib.sha256(content).hexdigest()})
    (folder / "description.json").write_text(told.model_dump_json())
    with pytest.raises(
        ModelUnavailableError, match=r"image tensor\(float\) \['n', 3, .*\(n, c, y, x\) with c = 1: export"
    ):
        OnnxEngine.open(load_model(folder), "cpu")
