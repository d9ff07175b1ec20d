"""The laws for models that see each section amid its neighbours: context, as channels of the image.

The map of section z is f of sections z - c to z + c, each padded as law 1 says; sections outside the volume are
reflected at its first and last section.  This is written down a second time here, with ``numpy.pad``.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
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
from emboundary.service.engine import OnnxEngine
from emboundary.service.errors import DeviceError, EmboundaryError, InputError
from emboundary.service.preparing.intensity import Intensity
from emboundary.service.progress import QuietReporter
from emboundary.service.run import inference
from emboundary.service.run.inference import predict_array, predict_box
from emboundary.service.run.prediction import MapReport, make_map
from emboundary.service.run.predictor import LocalPredictor
from emboundary.service.run.request import MapRequest
from emboundary.service.volumes import open_volume

TOLERANCE = 1e-5
INTENSITY = Intensity(127.5, 73.9)
Map = NDArray[np.float32]


def noise(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng([seed, *shape]).integers(0, 256, shape, dtype=np.uint8)


def whole(network: Any, array: NDArray[np.uint8], *, tta: bool = False) -> Map:
    """The map by its definition: all sections at once, nothing tiled."""
    normalised = ((array.astype(np.float64) - INTENSITY.mean) / INTENSITY.std).astype(np.float32)
    found: Map = network.volume(normalised, turns=tta)
    return found


def assert_same(found: NDArray[Any], expected: NDArray[Any]) -> None:
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= TOLERANCE


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.tuples(st.integers(1, 6), st.integers(1, 40), st.integers(1, 40)),
    tile=st.integers(1, 50),
    tta=st.booleans(),
    together=st.integers(1, 20_000),
    data=st.data(),
)
def test_law_1_any_tile_box_and_batch_give_the_map_of_the_whole_volume(
    seeing: Any, shape: tuple[int, int, int], tile: int, tta: bool, together: int, data: st.DataObject
) -> None:
    """Down to volumes of a single section, which is its own neighbour."""
    array = noise(*shape)
    expected = whole(seeing, array, tta=tta)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inference, "BATCH_PIXELS", together)
        assert_same(predict_array(seeing.engine, array, INTENSITY, tile=tile, tta=tta), expected)
        corners = (sorted(data.draw(st.lists(st.integers(0, n), min_size=2, max_size=2, unique=True))) for n in shape)
        start, stop = zip(*corners, strict=True)
        box = Box(start, stop)
        assert_same(predict_box(seeing.engine, array, box, INTENSITY, tta=tta), expected[box.slices])


def run(engine: Any, source: Path, target: Path, **options: Any) -> MapReport:
    request = MapRequest(str(source), target, intensity=INTENSITY, **options)
    return make_map(request, LocalPredictor(engine), QuietReporter(Console(file=io.StringIO(), quiet=True)))


def read(path: Path) -> NDArray[Any]:
    with open_volume(path) as volume:
        z, y, x = volume.shape
        return volume[0:z, 0:y, 0:x]


@pytest.mark.parametrize("roi", [None, "0:1,0:61,0:83", "3:4,13:55,30:71", "2:7,40:61,0:9"])
def test_law_1_a_region_of_interest_reads_the_sections_around_it(seeing: Any, tmp_path: Path, roi: str | None) -> None:
    array = noise(7, 61, 83)
    zarr.create_array(tmp_path / "in.zarr", data=array, chunks=(2, 30, 30))
    box = Box.of_shape((7, 61, 83))
    if roi is not None:
        low, high = zip(*(map(int, part.split(":")) for part in roi.split(",")), strict=True)
        box = Box(low, high)
    expected = whole(seeing, array)[box.slices]
    run(
        seeing.engine,
        tmp_path / "in.zarr",
        tmp_path / "exact.zarr",
        roi=roi,
        tile=32,
        chunk=(2, 24, 40),
        dtype="float32",
    )
    assert_same(read(tmp_path / "exact.zarr"), expected)
    run(seeing.engine, tmp_path / "in.zarr", tmp_path / "levels.tif", roi=roi)
    levels = read(tmp_path / "levels.tif").astype(int)
    assert np.abs(levels - np.rint(expected * np.float32(255))).max() <= 1


@pytest.mark.parametrize("options", [{"rescale": True}, {"clahe": True}])
def test_law_1_any_cut_gives_the_same_map_of_a_changed_volume(
    seeing: Any, tmp_path: Path, options: dict[str, bool]
) -> None:
    source = tmp_path / "in.zarr"
    zarr.create_array(source, data=noise(5, 70, 90), chunks=(2, 40, 40), dimension_names=["z", "y", "x"])
    roi = Box((2, 13, 22), (4, 60, 81))
    common: dict[str, Any] = {"voxel_size_nm": (50.0, 7.0, 6.1), "dtype": "float32", **options}
    run(seeing.engine, source, tmp_path / "whole.zarr", **common)
    run(seeing.engine, source, tmp_path / "part.zarr", roi=str(roi), tile=16, chunk=(1, 24, 40), **common)
    assert_same(read(tmp_path / "part.zarr"), read(tmp_path / "whole.zarr")[roi.slices])


def test_law_1_constant_tiles_get_the_network_s_answer_only_amid_constant_neighbours(
    seeing: Any, tmp_path: Path
) -> None:
    """A constant section between others is no constant to the network."""
    array = np.full((9, 40, 40), 90, np.uint8)
    array[4] = noise(40, 40)
    zarr.create_array(tmp_path / "in.zarr", data=array, chunks=(1, 40, 40))
    report = run(seeing.engine, tmp_path / "in.zarr", tmp_path / "out.zarr", chunk=(1, 40, 40), dtype="float32")
    assert_same(read(tmp_path / "out.zarr"), whole(seeing, array))
    assert report.blocks_constant == 9 - (2 * seeing.entry.description.context + 1)


def test_law_1_a_section_that_cannot_be_read_is_missed_by_its_neighbours_too(seeing: Any, tmp_path: Path) -> None:
    """They are reported and not made up."""
    array = noise(9, 20, 20)
    zarr.create_array(tmp_path / "in.zarr", data=array, chunks=(1, 20, 20))
    (tmp_path / "in.zarr" / "c" / "4" / "0" / "0").write_bytes(b"damaged")
    report = run(seeing.engine, tmp_path / "in.zarr", tmp_path / "out.zarr", chunk=(1, 20, 20))
    c = seeing.entry.description.context
    assert [block.box.start[0] for block in report.missing] == list(range(4 - c, 5 + c))
    assert not report.complete


def test_the_map_moves_with_the_sections(seeing: Any) -> None:
    """Far enough from the first and last section, the map of a part of a volume is a part of its map."""
    array, c = noise(9, 24, 24), seeing.entry.description.context
    everything, part = (predict_array(seeing.engine, a, INTENSITY) for a in (array, array[2:8]))
    assert_same(part[c : len(part) - c], everything[2 + c : 8 - c])


def test_a_volume_upside_down_has_another_map(seeing: Any) -> None:
    """What is above and what is below are different channels; where both are the same the order is no matter."""
    array = noise(5, 24, 24)
    array[0] = array[-1] = array[2]
    upright, reversed_ = (
        predict_array(seeing.engine, a, INTENSITY) for a in (array, np.ascontiguousarray(array[::-1]))
    )
    assert np.abs(reversed_[::-1] - upright).max() > 100 * TOLERANCE
    alike = np.repeat(noise(1, 24, 24), 5, axis=0)
    assert_same(
        predict_array(seeing.engine, alike, INTENSITY),
        np.repeat(predict_array(seeing.engine, alike[:1], INTENSITY), 5, axis=0),
    )


def test_only_sections_within_the_context_matter(seeing: Any) -> None:
    array, c = noise(9, 24, 24), seeing.entry.description.context
    before = predict_array(seeing.engine, array, INTENSITY)
    array[4] = noise(24, 24, seed=1)
    changed = np.abs(predict_array(seeing.engine, array, INTENSITY) - before).max(axis=(1, 2)) > TOLERANCE
    assert np.flatnonzero(changed).tolist() == list(range(4 - c, 5 + c))


@dataclass
class Failing:
    """An engine whose device fails after some runs."""

    inner: OnnxEngine
    left: int

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def run(self, images: Map) -> Map:
        self.left -= 1
        if self.left < 0:
            raise DeviceError("out of memory")
        return self.inner.run(images)


def test_law_3_a_run_that_failed_goes_on_to_the_same_bytes(seeing: Any, tmp_path: Path) -> None:
    source = tmp_path / "in.zarr"
    zarr.create_array(source, data=noise(6, 60, 70), chunks=(2, 30, 30))
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    common: dict[str, Any] = {"tile": 24, "chunk": (2, 32, 32)}
    done = run(seeing.engine, source, tmp_path / "whole" / "map.zarr", **common).blocks_done
    with pytest.raises(EmboundaryError, match=r"out of memory; \d+ of \d+ blocks are stored, and the same command"):
        run(Failing(seeing.engine, 15), source, tmp_path / "cut" / "map.zarr", **common)
    rest = run(seeing.engine, source, tmp_path / "cut" / "map.zarr", **common)
    assert rest.blocks_resumed > 0
    assert rest.blocks_resumed + rest.blocks_done == done
    maps = [tmp_path / name / "map.zarr" for name in ("whole", "cut")]
    stored = [{path.relative_to(m): path.read_bytes() for path in m.rglob("*") if path.is_file()} for m in maps]
    assert stored[0] == stored[1]


def test_an_intensity_that_overflows_in_a_neighbour_is_refused(seeing: Any) -> None:
    with pytest.raises(InputError, match=r"normalised by intensity 0\.0,1e-300, voxel values become too large"):
        predict_array(seeing.engine, noise(3, 8, 8), Intensity(0.0, 1e-300))
