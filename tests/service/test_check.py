"""``emboundary check``: what it looks at, what it measures, and what it says about it."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tifffile
import zarr
from numpy.typing import NDArray
from onnx import helper
from rich.console import Console

from emboundary.model.description import METADATA_KEY, ModelDescription
from emboundary.model.geometry import Box, Footprint
from emboundary.model.repository import load_model
from emboundary.service import console
from emboundary.service.checking import CheckReport, CheckRequest, check, grey_values
from emboundary.service.checking import estimate as costs
from emboundary.service.checking.estimate import Estimate, read_pixels, time_tile
from emboundary.service.checking.grey_values import Comparison, columns, compare, distribution
from emboundary.service.checking.laws import pieces, seam_error, symmetry_error, tolerance, turnable
from emboundary.service.checking.places import read_sample, spread
from emboundary.service.checking.report import GreyValues, Law, VolumeFacts
from emboundary.service.checking.run import affordable_side
from emboundary.service.cli import create_cli
from emboundary.service.commands.check import histogram
from emboundary.service.engine import IdentityEngine, OnnxEngine
from emboundary.service.errors import InputError, UsageError
from emboundary.service.preparing.intensity import Intensity, measure
from emboundary.service.progress import QuietReporter
from emboundary.service.run.inference import Map
from emboundary.service.run.tiling import Tiling
from emboundary.service.volumes import open_volume

UNIT = Intensity(0.0, 1.0)
FOOTPRINT = Footprint((0, 8, 8), (1, 4, 4))
NOTHING = Footprint((0, 0, 0), (1, 4, 4))
SAMPLE = Path(grey_values.__file__).parents[1] / "sample" / "raw.ome.tif"


def noise(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def ticks(step: float) -> Callable[[], float]:
    """A clock that goes on by a step every time it is read."""
    times = itertools.count(0.0, step)
    return lambda: next(times)


@pytest.fixture(scope="module")
def tiny(repository: Path) -> OnnxEngine:
    return OnnxEngine.open(load_model("d4", repository), "cpu")


# Places


@pytest.mark.parametrize(
    ("region", "count"), [(Box((0, 0, 0), (40, 900, 700)), 24), (Box((5, 100, 70), (6, 180, 95)), 17)]
)
def test_places_are_spread_inside_the_region_and_always_the_same(region: Box, count: int) -> None:
    boxes = spread(region, 64, 24)
    assert boxes == spread(region, 64, 24)
    assert len(set(boxes)) == len(boxes) == count
    assert all(region.contains(box) for box in boxes)
    assert {box.shape for box in boxes} == {(1, min(64, region.shape[1]), min(64, region.shape[2]))}
    assert boxes[1].start == region.start
    assert boxes[2].stop == region.stop
    for axis in (0, 1, 2):
        free = region.shape[axis] - boxes[0].shape[axis]
        where = sorted(box.start[axis] - region.start[axis] for box in boxes)
        assert max(np.diff(where), default=0) <= 1 + free / 8  # 24 even steps, and some room


def test_a_volume_of_one_voxel_has_one_place() -> None:
    assert spread(Box.of_shape((1, 1, 1)), 512, 24) == [Box.of_shape((1, 1, 1))]


class Damaged:
    """A volume of which some sections cannot be read."""

    def __init__(self, array: NDArray[Any], sections: set[int]) -> None:
        self._array, self._sections, self.shape = array, sections, array.shape

    def __getitem__(self, key: tuple[slice, slice, slice]) -> NDArray[Any]:
        if key[0].start in self._sections:
            raise InputError(f"section {key[0].start} is damaged")
        return self._array[key]


def sections(count: int) -> list[Box]:
    return [Box((z, 0, 0), (z + 1, 8, 8)) for z in range(count)]


def test_places_without_contrast_are_passed_over_and_faults_are_kept() -> None:
    array = noise(5, 8, 8)
    array[[0, 3]] = 7
    sample = read_sample(Damaged(array, {2}), (1, 8, 8), sections(5), 9, ticks(1), 100)
    assert [place.box.start[0] for place in sample.places] == [1, 4]
    assert sample.places[0].centre == (1, 4, 4)
    np.testing.assert_array_equal(sample.places[0].values, array[1:2])
    assert (sample.constant, sample.faults, sample.tried) == (2, ("section 2 is damaged",), 5)


def test_reading_ends_when_there_are_enough_places() -> None:
    array = noise(9, 8, 8)
    array[0] = 7
    sample = read_sample(array, (1, 8, 8), sections(9), 3, ticks(1), 100)
    assert [place.box.start[0] for place in sample.places] == [1, 2, 3]


def test_reading_ends_at_the_deadline_after_one_place_at_least() -> None:
    assert len(read_sample(noise(9, 8, 8), (1, 8, 8), sections(9), 9, ticks(1), 3).places) == 4
    assert len(read_sample(noise(9, 8, 8), (1, 8, 8), sections(9), 9, ticks(1), -1).places) == 1


def test_a_volume_of_which_nothing_can_be_read_is_refused() -> None:
    with pytest.raises(InputError, match="section 0 is damaged"):
        read_sample(Damaged(noise(2, 8, 8), {0, 1}), (1, 8, 8), sections(2), 9, ticks(1), 100)


def test_the_pace_of_reading_counts_whole_chunks_that_are_not_empty() -> None:
    array = noise(5, 20, 20)
    array[2] = 7
    boxes = [Box((0, 3, 3), (1, 5, 5)), Box((2, 0, 0), (3, 2, 2)), Box((4, 15, 15), (5, 17, 17))]
    sample = read_sample(array, (2, 4, 8), boxes, 9, ticks(1), 100)
    first, last = 2 * (8 - 0) * (8 - 0), 1 * (20 - 12) * (20 - 8)  # the last one's chunks leave the volume
    assert sample.voxels_per_second == (first + last) / 2


# Laws


@pytest.mark.parametrize("stride", [1, 3, 4])
@pytest.mark.parametrize("shape", [(1, 64, 40), (1, 2, 3), (1, 1, 9), (1, 1, 1)])
def test_pieces_make_up_the_box(stride: int, shape: tuple[int, int, int]) -> None:
    box = Box((3, 5, 8), (3 + shape[0], 5 + shape[1], 8 + shape[2]))
    counted = np.zeros((4, 80, 60), int)
    for part in pieces(box, Footprint((0, stride, stride), (1, stride, stride))):
        counted[part.slices] += 1
    assert counted[box.slices].min() == counted.max() == 1
    assert counted.sum() == box.voxels


@pytest.mark.parametrize("stride", [3, 4, 8])
def test_one_cut_is_where_a_stride_begins_and_one_is_not(stride: int) -> None:
    parts = list(pieces(Box((0, 5, 8), (1, 69, 48)), Footprint((0, stride, stride), (1, stride, stride))))
    assert len(parts) == 9
    for axis, first in ((1, 5), (2, 8)):
        one, other = sorted({part.start[axis] for part in parts} - {first})
        assert one % stride == 0
        assert other % stride != 0


def test_a_true_halo_leaves_no_seam(tiny: OnnxEngine) -> None:
    volume = noise(2, 70, 90)
    for box in (Box((0, 0, 0), (1, 70, 90)), Box((1, 33, 50), (2, 70, 90)), Box((1, 5, 7), (2, 6, 8))):
        assert seam_error(tiny, volume, box, Intensity(128, 70)) <= 1e-6


@dataclass(frozen=True)
class Narrowed:
    """A network that claims to need less around a pixel than it does."""

    inner: OnnxEngine
    footprint: Footprint = NOTHING
    outputs: tuple[str, ...] = ("boundary",)

    def run(self, images: Map) -> Map:
        return self.inner.run(images)


def test_a_halo_that_is_too_small_is_seen(tiny: OnnxEngine) -> None:
    assert seam_error(Narrowed(tiny), noise(1, 64, 64), Box.of_shape((1, 64, 64)), Intensity(128, 70)) > 1e-3


def test_an_identity_has_every_symmetry() -> None:
    values = np.linspace(0, 1, 2 * 16 * 24, dtype=np.float32).reshape(2, 16, 24)
    assert symmetry_error(IdentityEngine(FOOTPRINT), values, UNIT) == 0.0


@dataclass(frozen=True)
class Blurred:
    """A network that adds neighbours, given by their offsets (y, x), to each pixel."""

    offsets: tuple[tuple[int, int], ...]
    footprint: Footprint = FOOTPRINT
    outputs: tuple[str, ...] = ("boundary",)

    def run(self, images: Map) -> Map:
        return images + sum(np.roll(images, offset, axis=(2, 3)) for offset in self.offsets)


@pytest.mark.parametrize("offsets", [((0, 1),), ((1, 0),), ((1, 0), (-1, 0)), ((1, 1), (-1, -1))])
def test_each_turn_and_mirror_is_tried(offsets: tuple[tuple[int, int], ...]) -> None:
    values = np.random.default_rng(0).random((1, 16, 16), np.float32)
    assert symmetry_error(Blurred(offsets), values, UNIT) > 0.1
    everywhere = tuple((y, x) for y in (-1, 0, 1) for x in (-1, 0, 1))
    assert symmetry_error(Blurred(everywhere), values, UNIT) < 1e-5


def test_a_network_with_a_preferred_direction_is_seen(tiny: OnnxEngine) -> None:
    assert symmetry_error(tiny, noise(1, 32, 24), Intensity(128, 70)) > 1e-2


def test_the_mean_over_all_turns_has_none(tiny: OnnxEngine) -> None:
    assert symmetry_error(tiny, noise(1, 32, 24), Intensity(128, 70), tta=True) <= 1e-6


def test_sections_are_cut_to_multiples_of_the_stride() -> None:
    values, footprint = noise(1, 30, 50), Footprint((0, 12, 12), (1, 4, 6))
    found = turnable(values, footprint, 40)
    assert found is not None
    assert found.shape == (1, 24, 36)
    np.testing.assert_array_equal(found, values[:, :24, :36])
    assert turnable(values, footprint, 5) is not None  # one multiple at least, where there is one
    assert turnable(noise(1, 11, 50), footprint, 40) is None


def test_what_is_allowed_follows_the_precision(tiny: OnnxEngine) -> None:
    description = tiny.description.model_copy(update={"precisions": {"float32": 1e-6, "float16": 2e-3}})
    assert tolerance(description, "float32") == 1e-5
    assert tolerance(description, "float16") == 4e-3


# Grey values


def sample_values() -> NDArray[Any]:
    with open_volume(SAMPLE) as volume:
        return volume[0 : volume.shape[0], 0 : volume.shape[1], 0 : volume.shape[2]]


def compared(values: NDArray[Any]) -> Comparison:
    return compare([values], measure(values).intensity)


def test_the_reference_is_like_itself_in_any_units() -> None:
    values = sample_values()
    assert compared(values).distance == 0.0
    assert compared(values.astype(np.float32) * 3 - 1000).distance < 0.02  # bins of 0.05, met from either side
    assert compared(values[:1]).verdict == "alike"


def test_exchanged_black_and_white_are_recognised() -> None:
    found = compared(255 - sample_values())
    assert found.verdict == "far"
    assert found.looks_inverted
    assert found.inverted_distance < 0.03


def test_what_is_no_micrograph_is_not_like_one() -> None:
    found = compared(np.where(noise(1, 300, 300) > 200, 255, 0).astype(np.uint8))
    assert (found.verdict, found.looks_inverted) == ("far", False)
    assert compared(noise(1, 300, 300)).verdict == "different"


def test_the_distance_is_how_far_grey_has_to_be_moved() -> None:
    values, intensity = sample_values(), measure(sample_values()).intensity
    moved = compare([values], replace(intensity, mean=intensity.mean - 0.5 * intensity.std))
    assert moved.distance == pytest.approx(0.5, abs=0.02)


def test_values_beyond_the_range_are_counted_at_its_ends() -> None:
    shares = distribution([np.array([-1e30, -9.0, 0.01, np.float32(3e38)])], UNIT)
    assert (shares[0], shares[160], shares[-1], shares.sum()) == (0.5, 0.25, 0.25, 1.0)


def test_columns_add_up_bins() -> None:
    shares = tuple(float(share) for share in distribution([np.linspace(-3.99, 3.99, 8000)], UNIT))
    found = columns(shares, 40, 4.0)
    assert sum(found) == pytest.approx(1)
    assert found == pytest.approx([1 / 40] * 40, rel=0.05)


def test_the_picture_shows_both_distributions() -> None:
    lines = list(histogram(compared(255 - sample_values())))
    volume, training = (next(line for line in lines if title in line)[15:] for title in ("this volume", "training"))
    assert len(lines) == 9
    assert training.rstrip() == volume[::-1].rstrip()
    assert "█" in volume
    assert lines[7].split() == ["-4", "0", "+4"]


# Cost


@pytest.mark.parametrize(("tile", "shape"), [(16, (3, 64, 100)), (30, (1, 61, 47)), (900, (2, 61, 47))])
def test_pixels_seen_are_those_of_all_tiles(tile: int, shape: tuple[int, int, int]) -> None:
    tiling = Tiling.plan(shape, (1, 16, 16), FOOTPRINT, tile)
    tiles = [part for block in tiling.grid for part in tiling.tiles(block)]
    assert read_pixels(tiling, FOOTPRINT) == sum(FOOTPRINT.read_box(part).voxels for part in tiles)


@dataclass
class Laps:
    """An identity that takes a microsecond per pixel of its clock's time."""

    footprint: Footprint = FOOTPRINT
    outputs: tuple[str, ...] = ("boundary",)
    now: float = 0.0
    warm_up: float = 0.0

    def run(self, images: Map) -> Map:
        self.now += images.size * 1e-6 + self.warm_up
        self.warm_up = 0.0
        return images

    def clock(self) -> float:
        return self.now


def lap(engine: Laps, seconds: float) -> costs.TilePass:
    region = Box((2, 10, 10), (4, 1000, 800))
    return time_tile(
        engine,
        noise(4, 1000, 1000),
        region,
        (3, 990, 20),
        (5, 900, 1100),
        UNIT,
        tta=False,
        clock=engine.clock,
        seconds=seconds,
    )


def test_a_tile_is_timed_warm_and_inside_the_region() -> None:
    one = lap(Laps(warm_up=1.0), 10)
    assert one.write == (1, 900, 790)
    assert one.pixels_per_second == pytest.approx(1e6)
    assert one.memory_bytes > 1 << 20


def test_small_tiles_are_timed_as_many_sections_together_as_a_run_gives() -> None:
    one = time_tile(
        Laps(),
        noise(40, 300, 300),
        Box((0, 0, 0), (40, 300, 300)),
        (39, 150, 150),
        (16, 300, 300),
        UNIT,
        tta=False,
        clock=Laps().clock,
        seconds=10,
    )
    assert one.write == ((1 << 20) // (300 + 16) ** 2, 300, 300)


def test_a_slow_model_is_timed_on_a_part_of_a_tile() -> None:
    engine = Laps()
    one = lap(engine, 0.2)
    assert one.pixels <= 200_000 < lap(Laps(), 10).pixels
    assert one.pixels_per_second == pytest.approx(1e6)
    assert engine.now < 0.2 * 4


def test_places_are_as_large_as_the_time_allows() -> None:
    one = costs.TilePass((1, 100, 100), 1_000_000, 1.0, 0)  # a million pixels per second
    sides = [affordable_side(FOOTPRINT, one, seconds) for seconds in (10, 3, 1, 0.3, 0)]
    assert sides == [512, 256, 128, 64, 32]


def test_memory_is_scaled_from_the_part_to_the_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    figures = {"VmRSS": 1000, "VmHWM": 5000}
    monkeypatch.setattr(costs, "_resident", figures.__getitem__)
    assert lap(Laps(), 10).memory_bytes == 5000
    part = lap(Laps(), 0.2)
    assert part.memory_bytes == 1000 + round(4000 * lap(Laps(), 10).pixels / part.pixels)


def test_free_memory_ends_at_the_containers_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(costs, "_CONTAINER", tmp_path / "memory.max")
    unlimited = costs.free_memory()
    assert unlimited is not None
    assert unlimited > 1 << 26
    (tmp_path / "memory.max").write_text("max\n")
    assert costs.free_memory() is not None
    (tmp_path / "memory.max").write_text("4096\n")
    assert costs.free_memory() == 4096
    monkeypatch.setattr(costs, "_MEMORY", tmp_path / "none")
    assert costs.free_memory() is None


# The report in words

SIZE = (50.0, 4.6, 4.6)
GOOD = CheckReport(
    volume=VolumeFacts("v.zarr", (4, 100, 100), "uint8", "z, y, x", (1, 50, 50), SIZE, Box.of_shape((4, 100, 100))),
    trained_voxel_sizes_nm=(SIZE,),
    mismatch=None,
    grey_values=GreyValues(128.0, 30.0, "of the whole volume", Comparison((1.0,), (1.0,), 0.05, 0.3)),
    sampled_places=24,
    constant_places=0,
    unreadable=(),
    seams=Law(8, 512, 1e-7, 1e-5),
    symmetry=Law(8, 256, 1e-6, 1e-5),
    described_symmetry_error=7e-7,
    estimate=Estimate((992, 768), 20.0, 2.0, 1.0, 1 << 30, 1 << 33, 1 << 20),
    check_seconds=20.0,
)


def states(report: CheckReport) -> dict[str, str]:
    """What is not as it should be."""
    return {finding.subject: finding.state for finding in report.findings() if finding.state != "ok"}


def test_a_good_report_has_nothing_to_remark() -> None:
    assert states(GOOD) == {}
    assert GOOD.well
    assert all(not finding.remedy for finding in GOOD.findings())
    assert GOOD.estimate.seconds == 21.0


@pytest.mark.parametrize(
    ("changes", "subject", "words"),
    [
        ({"mismatch": "give --rescale"}, "voxel size", "give --rescale"),
        ({"trained_voxel_sizes_nm": ()}, "voxel size", "50 x 4.6 x 4.6 nm; the model does not say"),
        ({"grey_values": replace(GOOD.grey_values, comparison=None)}, "training data", "map a small --roi"),
        (
            {"grey_values": replace(GOOD.grey_values, comparison=Comparison((1.0,), (1.0,), 0.3, 0.02))},
            "training data",
            "invert the volume",
        ),
        (
            {"grey_values": replace(GOOD.grey_values, comparison=Comparison((1.0,), (1.0,), 0.15, 0.15))},
            "training data",
            "map a small --roi",
        ),
        ({"symmetry": Law(0, 256, 0.0, 1e-5)}, "symmetry", "smaller than the model's stride"),
        ({"estimate": replace(GOOD.estimate, read_seconds=21.0)}, "time", "a copy on a local disk"),
        ({"estimate": replace(GOOD.estimate, free_memory_bytes=1 << 29)}, "memory", "give a smaller --tile"),
    ],
)
def test_what_does_not_fit_is_noted_and_not_an_error(changes: dict[str, Any], subject: str, words: str) -> None:
    report = replace(GOOD, **changes)
    assert states(report) == {subject: "note"}
    assert report.well
    (finding,) = (one for one in report.findings() if one.subject == subject)
    assert words in f"{finding.found} {finding.remedy}"


@pytest.mark.parametrize(
    ("changes", "subject"),
    [
        ({"seams": Law(8, 512, 1.1e-5, 1e-5)}, "seams"),
        ({"seams": Law(8, 512, float("nan"), 1e-5)}, "seams"),
        ({"symmetry": Law(8, 256, 1.1e-5, 1e-5)}, "symmetry"),
        ({"unreadable": ("v.zarr cannot be read at 0:1",)}, "reading"),
    ],
)
def test_what_would_not_work_is_an_error(changes: dict[str, Any], subject: str) -> None:
    report = replace(GOOD, **changes)
    assert states(report) == {subject: "failed"}
    assert not report.well


def test_empty_parts_make_the_time_an_upper_bound() -> None:
    (time,) = (one for one in replace(GOOD, constant_places=3).findings() if one.subject == "time")
    assert time.found.startswith("at most about 21 s in tiles of 992 x 768")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.0523, "0.052 s"), (21, "21 s"), (119, "119 s"), (3000, "50 min"), (9000, "2.5 h"), (2e5, "2 days")],
)
def test_times_are_as_precise_as_an_estimate_is(seconds: float, words: str) -> None:
    cost = replace(GOOD.estimate, compute_seconds=seconds, read_seconds=0.01, measure_seconds=0.0)
    (time,) = (one for one in replace(GOOD, estimate=cost).findings() if one.subject == "time")
    assert time.found.startswith(f"about {words} in tiles of")


def test_a_model_that_promises_no_symmetry_breaks_none() -> None:
    report = replace(GOOD, symmetry=Law(8, 256, 0.4, None))
    assert report.well
    assert "this model promises none" in " ".join(finding.found for finding in report.findings())


def test_memory_that_the_system_does_not_tell_is_no_remark() -> None:
    assert states(replace(GOOD, estimate=replace(GOOD.estimate, free_memory_bytes=None))) == {}


def test_the_report_is_json() -> None:
    found = json.loads(json.dumps(GOOD.to_json()))
    assert found["ok"] is True
    assert found["volume"]["roi"] == "0:4,0:100,0:100"
    assert found["seams"] == {"places": 8, "side": 512, "error": 1e-7, "tolerance": 1e-5}
    assert found["estimate"]["seconds"] == 21.0
    assert found["grey_values"]["comparison"]["verdict"] == "alike"
    assert [one["subject"] for one in found["checks"]] == [finding.subject for finding in GOOD.findings()]


def test_a_tile_below_one_is_refused() -> None:
    with pytest.raises(UsageError, match="tile is 0; it must be at least 1"):
        CheckRequest("v.zarr", tile=0)


# The command


def altered(repository: Path, folder: Path, **changes: Any) -> Path:
    """A copy of a tiny model with another description."""
    source = repository / "d4" / "1"
    description = ModelDescription.model_validate_json((source / "description.json").read_text())
    described = description.model_copy(update={**changes, "sha256": None})
    model = onnx.load(source / "model.onnx")
    helper.set_model_props(model, {METADATA_KEY: described.model_dump_json()})
    content = model.SerializeToString()
    (folder / "model.onnx").write_bytes(content)
    card = json.loads(described.model_dump_json()) | {"sha256": hashlib.sha256(content).hexdigest()}
    (folder / "description.json").write_text(json.dumps(card))
    return folder / "model.onnx"


@dataclass(frozen=True)
class Shell:
    """Runs ``emboundary check`` on the CPU, on a volume in a folder of its own."""

    source: Path
    model: Path
    capture: pytest.CaptureFixture[str]

    def run(self, *words: str) -> tuple[int, str, str]:
        self.capture.readouterr()
        given = ["check", str(self.source), "--device", "cpu", *words]
        if "--model" not in words:
            given += ["--model", str(self.model)]
        code = console.run(create_cli(), "emboundary", given)
        out, err = self.capture.readouterr()
        return code, out, err

    def json(self, *words: str) -> tuple[int, dict[str, Any]]:
        code, out, _ = self.run(*words, "--json")
        return code, json.loads(out)


@pytest.fixture
def shell(
    tmp_path: Path, repository: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Shell]:
    monkeypatch.setenv("COLUMNS", "250")
    source = tmp_path / "in.zarr"
    zarr.create_array(source, data=noise(3, 200, 150), chunks=(1, 100, 100))
    return Shell(source, repository / "d4" / "1" / "model.onnx", capsys)


def test_a_volume_on_which_all_is_well(shell: Shell) -> None:
    code, found = shell.json("--voxel-size", "50,4.6,4.6")
    assert (code, found["ok"], found["model"], found["device"]) == (0, True, "d4", "cpu")
    assert found["volume"]["shape"] == [3, 200, 150]
    assert found["volume"]["chunks"] == [1, 100, 100]
    assert found["volume"]["voxel_size_nm"] == [50, 4.6, 4.6]
    assert found["grey_values"]["basis"] == "of the whole volume"
    assert found["grey_values"]["mean"] == pytest.approx(noise(3, 200, 150).mean())
    assert found["seams"]["places"] >= 1
    assert found["seams"]["error"] <= 1e-6
    assert found["symmetry"]["error"] > 1e-2  # the tiny network prefers directions, and promises nothing else
    assert found["symmetry"]["tolerance"] is None
    assert 0 < found["estimate"]["compute_seconds"] < 60
    assert found["estimate"]["output_bytes"] >= 3 * 200 * 150
    assert {one["subject"]: one["state"] for one in found["checks"]}["voxel size"] == "ok"


def test_people_get_a_table(shell: Shell) -> None:
    code, out, err = shell.run()
    assert code == 0
    for subject in (
        "volume",
        "reading",
        "voxel size",
        "intensity",
        "training data",
        "seams",
        "symmetry",
        "time",
        "disk",
    ):
        assert subject in out
    assert "give --voxel-size" in out  # nothing is known about this volume's
    assert "training data  grey values not compared" in out  # the tiny model was trained on noise
    assert "model d4, version 1, on CPU" in err


def test_a_model_of_the_bundled_training_data_is_compared_with_it(
    shell: Shell, repository: Path, tmp_path: Path
) -> None:
    training = load_model("d4", repository).description.training[0].model_copy(update={"name": "vnc"})
    model = altered(repository, tmp_path, training=(training,))
    _, out, _ = shell.run("--model", str(model))
    assert "somewhat unlike what the model learned from" in out
    assert "this volume" in out
    tifffile.imwrite(tmp_path / "tissue.tif", sample_values()[:, :200, :200], photometric="minisblack")
    _, found = replace(shell, source=tmp_path / "tissue.tif", model=model).json()
    assert found["grey_values"]["comparison"]["verdict"] == "alike"


def test_padding_is_no_part_of_the_comparison(shell: Shell, repository: Path, tmp_path: Path) -> None:
    training = load_model("d4", repository).description.training[0].model_copy(update={"name": "vnc"})
    tissue = np.zeros((3, 384, 384), np.uint8)
    tissue[:, 100:300, 130:350] = sample_values()[:, :200, :220]
    tifffile.imwrite(tmp_path / "tissue.tif", tissue, photometric="minisblack")
    padded = replace(shell, source=tmp_path / "tissue.tif", model=altered(repository, tmp_path, training=(training,)))
    _, found = padded.json()
    assert found["grey_values"]["comparison"]["verdict"] == "alike"


def test_a_model_that_breaks_its_symmetry_fails(shell: Shell, repository: Path, tmp_path: Path) -> None:
    claims = load_model("d4", repository).description.symmetry.model_copy(update={"group": "D4", "error": 1e-6})
    model = altered(repository, tmp_path, symmetry=claims)
    code, out, _ = shell.run("--model", str(model))
    assert code == 1
    assert "failed  symmetry" in out


def test_a_model_that_leaves_seams_fails(shell: Shell, repository: Path, tmp_path: Path) -> None:
    model = altered(repository, tmp_path, halo=(0, 0, 0), receptive_field_radius=(0, 0, 0))
    code, found = shell.json("--model", str(model))
    assert (code, found["ok"]) == (1, False)
    assert found["seams"]["error"] > 1e-3
    assert {one["subject"] for one in found["checks"] if one["state"] == "failed"} == {"seams"}


@pytest.mark.parametrize("words", [(), ("--intensity", "128,70")])
def test_a_damaged_chunk_fails_and_is_named(shell: Shell, words: tuple[str, ...]) -> None:
    (shell.source / "c" / "1" / "0" / "0").write_bytes(b"no chunk")
    code, out, _ = shell.run(*words)
    assert code == 1
    assert "failed  reading" in out
    assert "in.zarr cannot be read at " in out
    assert "--fill-missing" in out
    assert "ok      seams" in out  # the rest is checked as far as it goes


def test_damage_beside_the_places_is_found_too(shell: Shell) -> None:
    (shell.source / "c" / "1" / "1" / "0").write_bytes(b"no chunk")
    code, found = shell.json("--roi", "0:3,0:99,0:99", "--intensity", "128,70")
    assert code == 1
    assert len(found["unreadable"]) == 2  # the central place was the first for the tile and for the seams
    assert found["seams"]["places"] == 2


def test_damage_all_around_leaves_nothing_to_check(shell: Shell) -> None:
    for section in ("0", "1", "2"):
        (shell.source / "c" / section / "1" / "0").write_bytes(b"no chunk")
    code, out, err = shell.run("--roi", "0:3,0:99,0:99", "--intensity", "128,70")
    assert (code, out) == (1, "")
    assert "cannot be read at " in err.splitlines()[-1]


def test_given_intensity_is_used_and_nothing_is_measured(shell: Shell) -> None:
    _, found = shell.json("--intensity", "100,20")
    assert (found["grey_values"]["mean"], found["grey_values"]["std"]) == (100, 20)
    assert found["grey_values"]["basis"] == "as given"
    assert found["estimate"]["measure_seconds"] == 0


def test_large_volumes_are_measured_on_the_sample(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emboundary.service.checking.run._MEASURED_WHOLE", 1000)
    _, found = shell.json()
    assert found["grey_values"]["basis"].startswith("of a sample of ")
    assert found["grey_values"]["mean"] == pytest.approx(127.5, abs=1)


def test_a_region_is_checked_alone(shell: Shell) -> None:
    _, found = shell.json("--roi", "1:2,0:40,10:50")
    assert found["volume"]["roi"] == "1:2,0:40,10:50"
    assert found["seams"]["places"] == 1
    assert found["estimate"]["output_bytes"] == 1600


def test_a_volume_without_contrast_is_refused(shell: Shell, tmp_path: Path) -> None:
    array = noise(3, 64, 64)
    array[:, 32:] = 5
    zarr.create_array(tmp_path / "half.zarr", data=array)
    code, out, err = replace(shell, source=tmp_path / "half.zarr").run("--roi", "0:3,32:64,0:64")
    assert (code, out) == (1, "")
    assert "is constant at all" in err.splitlines()[-1]
    assert "give --roi" in err.splitlines()[-1]


def test_empty_parts_are_counted(shell: Shell, tmp_path: Path) -> None:
    array = noise(4, 64, 64)
    array[1] = 5
    zarr.create_array(tmp_path / "gap.zarr", data=array)
    code, found = replace(shell, source=tmp_path / "gap.zarr").json()
    assert (code, found["sampled_places"], found["constant_places"], found["seams"]["places"]) == (0, 4, 1, 3)


def test_a_section_smaller_than_the_stride_is_no_error(shell: Shell, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "thin.tif", noise(2, 3, 40), photometric="minisblack")
    code, found = replace(shell, source=tmp_path / "thin.tif").json()
    assert code == 0
    assert found["symmetry"]["places"] == 0


def test_a_slow_machine_checks_fewer_places(tiny: OnnxEngine, shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    reporter = QuietReporter(Console())
    quick = check(CheckRequest(str(shell.source)), tiny, reporter, ticks(0.001))
    slow = check(CheckRequest(str(shell.source)), tiny, reporter, ticks(7.0))
    assert (quick.seams.places, quick.seams.side) == (3, 512)  # one for each section of this volume
    assert (slow.seams.places, slow.seams.side) == (1, 32)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("words", [("--tile", "0"), ("--roi", "0:9,0:9,0:9"), ("--voxel-size", "5")])
def test_wrong_usage_ends_with_2(shell: Shell, words: tuple[str, ...]) -> None:
    assert shell.run(*words)[0] == 2
