"""A volume through the endpoint in pieces: the map that the library gives in one (law 5)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import settings as limits_of
from hypothesis import strategies as st
from numpy.typing import NDArray
from rich.console import Console

from emboundary.model.geometry import BlockGrid, Box
from emboundary.model.repository import load_model
from emboundary.service.client.http import BoundaryClient
from emboundary.service.client.streaming import RemoteModel
from emboundary.service.engine import OnnxEngine
from emboundary.service.errors import RemoteError, UsageError
from emboundary.service.preparing.intensity import Intensity
from emboundary.service.progress import QuietReporter
from emboundary.service.run.inference import predict_array
from emboundary.service.run.prediction import MapReport, make_map
from emboundary.service.run.request import MapRequest
from emboundary.service.run.tiling import Tiling, split
from emboundary.service.schemas import ModelReply

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


@pytest.mark.parametrize("tta", [False, True])
@pytest.mark.parametrize("scale", [1.0, 1.7])
@pytest.mark.parametrize("shape", [(300, 20_000, 30_000), (64, 700, 900), (1, 100, 40_000)])
def test_what_is_asked_at_a_time_takes_seconds_by_default(
    model_reply: ModelReply, shape: Any, scale: float, tta: bool
) -> None:
    """Sizes as a service with the default settings states them, and a footprint as the bundled models have it."""
    limits = {"max_body_bytes": 1 << 26, "max_computed_voxels": 1 << 28, "tile": 896}
    update = {"limits": model_reply.limits.model_copy(update=limits), "halo": (0, 40, 40), "stride": (1, 8, 8)}
    remote = RemoteModel(None, model_reply.model_copy(update=update), tta=tta)  # type: ignore[arg-type]
    tiling = remote.plan(shape, (64, 64, 64), np.dtype("uint8"), None, output_bytes=1, scale=scale)
    z, y, x = tiling.tile
    computed = z * ((y + 160) * scale + 16) * ((x + 160) * scale + 16) * (8 if tta else 1)
    assert (1 << 19) < computed < 1.5 * (1 << 22)


def test_another_file_of_the_model_ends_the_run(client: BoundaryClient) -> None:
    described = client.model("d4")
    remote = RemoteModel(client, described.model_copy(update={"sha256": "0" * 64}))
    with pytest.raises(RemoteError, match=r"answered with another file of d4 1 than it described when the run began"):
        remote.ask(volume_of((1, 9, 9)), INTENSITY)


def test_the_version_that_was_described_is_asked_for(client: BoundaryClient) -> None:
    remote = RemoteModel(client, client.model("d4").model_copy(update={"version": "7"}))
    with pytest.raises(RemoteError, match=r"answered 404: .*7"):
        remote.ask(volume_of((1, 9, 9)), INTENSITY)


@pytest.mark.parametrize("concurrency", [1, 5])
def test_as_many_requests_are_under_way_as_asked_for(
    client: BoundaryClient, engine: OnnxEngine, tmp_path: Path, concurrency: int
) -> None:
    volume = volume_of((6, 70, 90))
    tifffile.imwrite(tmp_path / "in.tif", volume, photometric="minisblack")
    ways: list[int] = []
    most = threading.BoundedSemaphore(concurrency)
    barrier = threading.Barrier(concurrency, timeout=60)

    class Counting(RemoteModel):
        def ask(self, images: NDArray[Any], intensity: Intensity) -> NDArray[np.float32]:
            assert most.acquire(blocking=False), "more at a time than asked for"
            try:
                if len(ways) < concurrency:
                    ways.append(barrier.wait())
                return super().ask(images, intensity)
            finally:
                most.release()

    request = MapRequest(str(tmp_path / "in.tif"), tmp_path / "out.tif", tile=16, intensity=INTENSITY, dtype="float32")
    make_map(request, Counting(client, client.model(), concurrency=concurrency), QuietReporter(Console(quiet=True)))
    assert sorted(ways) == list(range(concurrency)), "they were never all under way at once"
    found = tifffile.imread(tmp_path / "out.tif")
    np.testing.assert_allclose(found, predict_array(engine, volume, INTENSITY), atol=1e-5, rtol=0)


def test_a_service_that_would_take_too_long_leads_to_a_smaller_tile(model_reply: ModelReply) -> None:
    def refuse(_: httpx.Request) -> httpx.Response:
        return httpx.Response(413, json={"title": "t", "status": 413, "detail": "it would take 40 s, 30 are allowed"})

    with BoundaryClient(httpx.Client(base_url="http://host", transport=httpx.MockTransport(refuse))) as client:
        remote = RemoteModel(client, model_reply)
        with pytest.raises(
            RemoteError,
            match=r"refuses 2x30x40 voxels at a time: it would take 40 s, .*; give a --tile of half the side",
        ):
            remote.ask(volume_of((2, 30, 40)), INTENSITY)


def test_law_3_a_run_that_is_cut_off_goes_on_to_the_same_bytes(url: str, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "in.tif", volume_of((4, 70, 90)), photometric="minisblack")
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    common: dict[str, Any] = {"tile": 24, "chunk": (1, 32, 32), "pyramid": False}

    class Failing(httpx.HTTPTransport):
        left = 9

        def handle_request(self, request: httpx.Request) -> httpx.Response:
            self.left -= request.url.path == "/v1/predict"
            return super().handle_request(request) if self.left >= 0 else httpx.Response(500)

    def run(transport: httpx.HTTPTransport, name: str) -> MapReport:
        with BoundaryClient(httpx.Client(base_url=url, transport=transport)) as client:
            request = MapRequest(str(tmp_path / "in.tif"), tmp_path / name / "map.zarr", **common)
            return make_map(request, RemoteModel(client, client.model()), QuietReporter(Console(quiet=True)))

    whole = run(httpx.HTTPTransport(), "whole")
    with pytest.raises(
        RemoteError, match=r"answered 500: .*; \d+ of 36 blocks are stored, and the same command goes on"
    ):
        run(Failing(), "cut")
    rest = run(httpx.HTTPTransport(), "cut")
    assert rest.blocks_resumed > 0
    assert rest.blocks_resumed + rest.blocks_done == whole.blocks_done == 36
    maps = [tmp_path / name / "map.zarr" for name in ("whole", "cut")]
    stored = [{path.relative_to(m): path.read_bytes() for path in m.rglob("*") if path.is_file()} for m in maps]
    assert len(stored[0]) > 36
    assert stored[0] == stored[1]
