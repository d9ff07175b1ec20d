"""Law 1: the map is f(pad(x)) cropped, for any tile, order, batch and region of interest."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rich.console import Console

from emboundary.model.geometry import Box
from emboundary.model.groups import D4, act, inverse_element
from emboundary.model.repository import list_models
from emboundary.service.preparing.intensity import Intensity
from emboundary.service.progress import LineReporter
from emboundary.service.run.inference import predict_array, predict_box
from emboundary.service.run.prediction import make_map
from emboundary.service.run.predictor import LocalPredictor
from emboundary.service.run.request import MapRequest
from emboundary.service.volumes import open_volume

TOLERANCE = 1e-5
BUNDLED = ("d4", "plain", "paper")
INTENSITY = Intensity(127.5, 73.9)


def noise(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, dtype=np.uint8)


def normalised(array: NDArray[np.uint8]) -> NDArray[np.float32]:
    return ((array.astype(np.float64) - INTENSITY.mean) / INTENSITY.std).astype(np.float32)


def whole(network: Any, array: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.stack([network.whole(section) for section in normalised(array)])


def turned(network: Any, array: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The mean over the 8 turns of the padded, aligned section."""
    maps = []
    for section in normalised(array):
        padded, (y, x), halo = network.padded(section), section.shape, network.halo
        each = [act(inverse_element(g), network.f(act(g, padded))) for g in D4.elements]
        maps.append(np.mean(each, axis=0)[halo:, halo:][:y, :x])
    return np.stack(maps)


def assert_same(found: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= TOLERANCE


# Sides that are no multiples of the stride (8), images of one pixel's width or height, and smaller than a tile.
SHAPES = [(1, 61, 83), (2, 64, 40), (1, 1, 70), (1, 70, 1), (1, 1, 1), (2, 5, 3)]


def test_every_bundled_model_is_held_to_the_laws() -> None:
    assert set(list_models()) == set(BUNDLED)


@pytest.mark.parametrize("tile", [24, None])
@pytest.mark.parametrize("shape", SHAPES)
def test_any_tile_gives_the_map_of_the_whole_section(bundled: Any, shape: tuple[int, ...], tile: int | None) -> None:
    array = noise(*shape)
    assert_same(predict_array(bundled.engine, array, INTENSITY, tile=tile), whole(bundled, array))


@pytest.mark.parametrize(
    "box", [Box((0, 13, 30), (1, 14, 31)), Box((0, 0, 57), (1, 9, 83)), Box((0, 39, 3), (1, 61, 20))]
)
def test_any_box_is_a_part_of_that_map(bundled: Any, box: Box) -> None:
    array = noise(1, 61, 83)
    assert_same(predict_box(bundled.engine, array, box, INTENSITY), whole(bundled, array)[box.slices])


@pytest.mark.parametrize("tile", [32, None])
def test_turns_are_of_the_padded_aligned_section(bundled: Any, tile: int | None) -> None:
    array = noise(1, 37, 50)
    assert_same(predict_array(bundled.engine, array, INTENSITY, tile=tile, tta=True), turned(bundled, array))


@pytest.mark.parametrize("roi", [None, "1:3,13:55,30:71"])
def test_a_run_from_file_to_file_gives_that_map(bundled: Any, tmp_path: Path, roi: str | None) -> None:
    array = noise(3, 61, 83)
    zarr.create_array(tmp_path / "in.zarr", data=array, chunks=(2, 30, 30))
    part = (slice(1, 3), slice(13, 55), slice(30, 71)) if roi else (slice(0, 3), slice(0, 61), slice(0, 83))
    expected = whole(bundled, array)[part]
    reporter = LineReporter(Console(file=io.StringIO()))
    for dtype, tolerance in (("float32", TOLERANCE), ("uint8", 1)):
        target = tmp_path / f"{dtype}.zarr"
        request = MapRequest(str(tmp_path / "in.zarr"), target, roi=roi, tile=32, dtype=dtype, intensity=INTENSITY)  # type: ignore[arg-type]
        make_map(request, LocalPredictor(bundled.engine), reporter)
        with open_volume(target) as volume:
            found = volume[0 : volume.shape[0], 0 : volume.shape[1], 0 : volume.shape[2]].astype(np.float64)
        wanted = np.rint(expected * np.float32(255)) if dtype == "uint8" else expected
        assert np.abs(found - wanted).max() <= tolerance


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 60), st.integers(1, 60)),
    tile=st.integers(1, 70),
    tta=st.booleans(),
    data=st.data(),
)
def test_a_small_network_in_many_shapes(
    tiny: Any, shape: tuple[int, int, int], tile: int, tta: bool, data: st.DataObject
) -> None:
    array = noise(*shape)
    expected = (turned if tta else whole)(tiny, array)
    assert_same(predict_array(tiny.engine, array, INTENSITY, tile=tile, tta=tta), expected)
    start, stop = zip(
        *(sorted(data.draw(st.lists(st.integers(0, n), min_size=2, max_size=2, unique=True))) for n in shape),
        strict=True,
    )
    box = Box(start, stop)
    assert_same(predict_box(tiny.engine, array, box, INTENSITY, tta=tta), expected[box.slices])


def test_a_wrong_halo_would_be_seen(tiny: Any) -> None:
    """The tolerance is far below what a halo that is one stride too small does."""
    array = noise(1, 61, 60)
    narrow = normalised(array[0])
    halo = tiny.halo - 2 * tiny.stride
    padded = np.pad(narrow, ((halo, halo + 3), (halo, halo)), mode="reflect")
    assert np.abs(tiny.f(padded)[halo:, halo:][:61, :60] - tiny.whole(narrow)).max() > 100 * TOLERANCE


@pytest.mark.parametrize("options", [{"rescale": True}, {"clahe": True}, {"rescale": True, "clahe": True}])
def test_any_cut_gives_the_same_map_of_a_changed_volume(tiny: Any, tmp_path: Path, options: dict[str, bool]) -> None:
    """Resampled by a factor that is no whole number, equalised section by section, or both; whole and in a ROI."""
    source = tmp_path / "in.zarr"
    zarr.create_array(source, data=noise(4, 90, 110), chunks=(2, 40, 40), dimension_names=["z", "y", "x"])
    roi = Box((1, 13, 22), (4, 70, 101))
    maps = {}
    for name, text, tile, chunk in (
        ("whole", None, None, None),
        ("small", None, 16, (1, 24, 40)),
        ("roi", str(roi), 24, (2, 16, 16)),
    ):
        request = MapRequest(
            str(source),
            tmp_path / f"{name}.zarr",
            voxel_size_nm=(50.0, 7.0, 6.1),
            roi=text,
            tile=tile,
            chunk=chunk,
            dtype="float32",
            **options,  # type: ignore[arg-type]
        )
        make_map(request, LocalPredictor(tiny.engine), LineReporter(Console(file=io.StringIO())))
        with open_volume(request.target) as volume:
            z, y, x = volume.shape
            maps[name] = volume[0:z, 0:y, 0:x]
    assert_same(maps["small"], maps["whole"])
    assert_same(maps["roi"], maps["whole"][roi.slices])
