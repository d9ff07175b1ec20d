"""The parts of a benchmark: figures from rounds, probes, watching an engine, volumes, agreement."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import zarr

from emboundary.model.repository import load_model
from emboundary.service.benchmark import probes
from emboundary.service.benchmark.agreement import agreement
from emboundary.service.benchmark.findings import findings
from emboundary.service.benchmark.load import Load, _ask
from emboundary.service.benchmark.mapping import make_volume
from emboundary.service.benchmark.probes import QUICK_SIZES, Probes
from emboundary.service.benchmark.ratios import ratios
from emboundary.service.benchmark.records import Cost, Limits, Machine, Report, Round, Row, Spread
from emboundary.service.benchmark.subjects import Subject, padded_side
from emboundary.service.benchmark.watching import Notes, Watched, covered, repeated
from emboundary.service.demo.contest import RAW
from emboundary.service.engine import Answer, Mapper, ModelEngine, OnnxEngine, Part
from emboundary.service.engine.place import Place
from emboundary.service.errors import DeviceError, RemoteError
from emboundary.service.preparing.intensity import Intensity
from emboundary.service.run.inference import predict_array
from emboundary.service.volumes import open_volume

LIMITS = Limits(matrix={"float32": 1000.0}, memory=500.0)


def row(model: str = "d4", *rounds: Round, passes: int = 1, layer_bytes: float | None = 6.0) -> Row:
    return Row.model_validate(
        {
            "what": "predict",
            "model": model,
            "version": "1",
            "precision": "float32",
            "passes": passes,
            "shape": (1, 10, 10),
            "cost": Cost(operations=10.0, least_bytes=1.0, layer_bytes=layer_bytes),
            "rounds": rounds or (Round(seconds=2.0, pixels=100, limits=LIMITS),),
        }
    )


def test_shares_of_limits_are_taken_within_rounds() -> None:
    faster = Limits(matrix={"float32": 2000.0}, memory=1000.0)
    found = row("d4", Round(seconds=2, pixels=100, limits=LIMITS), Round(seconds=1, pixels=100, limits=faster))
    assert found.pixels_per_second == Spread(median=75, low=50, high=100)
    assert found.of_matrix == Spread(median=0.5, low=0.5, high=0.5)
    assert found.of_memory == Spread(median=0.1, low=0.1, high=0.1)
    assert found.of_memory_by_layers is not None
    assert found.of_memory_by_layers.median == pytest.approx(0.6)
    assert found.nearer_limit == "memory"
    assert row(layer_bytes=None).nearer_limit == "arithmetic"


def test_eight_passes_are_eight_times_the_work() -> None:
    one, eight = row(), row(passes=8)
    assert one.of_matrix is not None
    assert eight.of_matrix is not None
    assert eight.of_matrix.median == 8 * one.of_matrix.median
    assert eight.pixels_per_second == one.pixels_per_second


def test_the_bare_session_is_compared_by_time_and_by_rate() -> None:
    found = row("d4", Round(seconds=2, pixels=100, limits=LIMITS, bare_seconds=1.8, bare_rate=80))
    assert found.of_bare is not None
    assert found.of_bare.median == pytest.approx(0.9)
    assert found.of_bare_rate is not None
    assert found.of_bare_rate.median == pytest.approx(50 / 80)
    assert row().of_bare is None


def test_a_precision_without_a_matrix_rate_has_no_share() -> None:
    found = row("d4", Round(seconds=2, pixels=100, limits=Limits(matrix={"int8": 1.0}, memory=1.0)))
    assert (found.of_matrix, found.nearer_limit) == (None, None)


def test_models_are_compared_with_those_of_their_size() -> None:
    def timed(model: str, seconds: float, passes: int = 1) -> Row:
        return row(model, *(Round(seconds=s * seconds, pixels=100, limits=LIMITS) for s in (1, 2)), passes=passes)

    rows = [timed("d4", 3), timed("plain", 2), timed("d4-base", 10), timed("plain-base", 8), timed("plain-base", 75, 8)]
    found = {ratio.name: ratio.times for ratio in ratios(rows)}
    assert found == {
        "d4 / plain": Spread(median=1.5, low=1.5, high=1.5),
        "d4-base / plain-base": Spread(median=1.25, low=1.25, high=1.25),
        "plain-base + 8x / d4-base": Spread(median=7.5, low=7.5, high=7.5),
    }


def test_a_report_is_read_back_as_it_was_written() -> None:
    machine = Machine(cpu="c", cores=2, memory_gib=4, system="s", python="3", load=9.5, packages={"numpy": "2"})
    report = Report(measured="2026-01-01", machine=machine, device="cpu", reason="asked", rows=(row(),))
    text = report.model_dump_json()
    assert '"of_matrix":{"median":0.5' in text
    assert Report.model_validate_json(text) == report
    assert list(findings(report))[-1] == "the load average was 9.5 on 2 cores: other processes slowed this down"


def test_the_limits_of_a_device_are_the_most_of_all_rounds() -> None:
    rounds = [
        Round(seconds=1, pixels=1, limits=Limits(matrix={"float32": matrix}, memory=memory))
        for matrix, memory in ((3.0, 10.0), (4.0, 9.0))
    ]
    machine = Machine(cpu="c", cores=2, memory_gib=4, system="s", python="3", load=0, packages={})
    report = Report(measured="2026-01-01", machine=machine, device="cpu", reason="asked", rows=(row("d4", *rounds),))
    assert report.limits == Limits(matrix={"float32": 4.0}, memory=10.0)


def test_probes_measure_every_precision() -> None:
    found = Probes(Place("cpu"), ("float32", "float16", "int8"), QUICK_SIZES).measure()
    assert set(found.matrix) == {"float32", "float16", "int8"}
    assert min(*found.matrix.values(), found.memory) > 0


def test_a_smaller_pass_over_memory_is_measured_where_a_larger_one_does_not_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def small(*given: Any) -> Callable[[], None]:
        sizes.append(given[-1]["y"][0][0])
        if sizes[-1] > room:
            raise RuntimeError("out of memory")
        return lambda: None

    monkeypatch.setattr(probes, "bound", small)
    monkeypatch.setattr(probes, "_LEAST_ELEMENTS", 16)
    sizes, room = [], 16
    assert probes._memory_probe(Place("cpu"), 64).amount == 2 * 4 * 16
    assert sizes == [64, 32, 16]
    sizes, room = [], 0
    with pytest.raises(
        DeviceError, match=r"cpu has no memory for 64 bytes .* \(out of memory\); end what else uses it"
    ):
        probes._memory_probe(Place("cpu"), 16)


def test_a_service_that_is_gone_is_one_error_for_all_clients() -> None:
    with pytest.raises(RemoteError, match="cannot be reached"):
        asyncio.run(_ask("http://127.0.0.1:9", np.zeros((8, 8), np.uint8), Load(3, 8, 0.0), 1))


def test_time_covered_counts_overlaps_once() -> None:
    assert covered([]) == 0
    assert covered([(5, 6), (0, 2), (1, 3), (1.5, 1.7)]) == 4


def test_something_is_repeated_until_its_time_is_over_and_once_at_least() -> None:
    runs: list[int] = []
    assert repeated(lambda: runs.append(1), 0.0)[0] == len(runs) == 1
    count, took = repeated(lambda: runs.append(1), 0.01)
    assert count == len(runs) - 1
    assert took >= 0.01


def test_a_watched_engine_gives_the_same_map_and_says_what_it_was_given(repository: Path) -> None:
    engine, notes = OnnxEngine.open(load_model("d4", repository), "cpu"), Notes()
    voxels = np.random.default_rng(0).integers(0, 256, (3, 20, 28), np.uint8)
    watched = cast(ModelEngine, Watched(engine, notes))
    found = predict_array(watched, voxels, Intensity(128, 60), tile=100)
    np.testing.assert_array_equal(found, predict_array(engine, voxels, Intensity(128, 60), tile=100))
    assert sum(n * count for (n, _, _), count in notes.images.items()) == 3
    assert {shape[1:] for shape in notes.images} == {(36, 44)}
    assert notes.busy_seconds > 0
    assert watched.device == "cpu"


def test_a_watched_mapper_counts_the_sections_of_all_parts(repository: Path) -> None:
    class OnTheDevice:
        def map(self, parts: list[Part], side: tuple[int, int] | None = None) -> list[Answer]:
            assert side == (16, 24)
            return [Answer(part.voxels, finite=True) for part in parts]

    class Engine:
        mapper = OnTheDevice()

    notes = Notes()
    mapper = Watched(cast(OnnxEngine, Engine()), notes).mapper
    assert isinstance(mapper, Mapper)
    parts = [Part(np.zeros((n, 1, 12, 20), np.uint8), 0, 1, slice(None), slice(None)) for n in (2, 3)]
    assert len(mapper.map(parts, (16, 24))) == 2
    assert notes.images == {(5, 16, 24): 1}
    assert Watched(OnnxEngine.open(load_model("d4", repository), "cpu"), notes).mapper is None


def test_a_volume_repeats_the_sample_in_any_size(tmp_path: Path) -> None:
    source = make_volume(tmp_path / "volume.zarr", (5, 400, 20))
    with open_volume(RAW) as sample:
        wanted = sample[0:3, 0:384, 0:20]
    found = np.asarray(zarr.open_array(source.where)[:])
    assert (found.shape, source.axes) == ((5, 400, 20), "zyx")
    np.testing.assert_array_equal(found[:3, :384], wanted)
    np.testing.assert_array_equal(found[3], found[2])  # mirrored at the last section


def test_agreement_is_the_largest_difference_on_the_sample(repository: Path) -> None:
    subject = Subject.open("d4", "cpu", "float32", 32, repository=repository)
    assert agreement(subject).largest == 0
    other = OnnxEngine.open(load_model("plain", repository), "cpu")
    found = agreement(Subject("d4", repository, subject.entry, other, subject.profile))
    assert (found.voxels, found.promised) == (3 * 384 * 384, 1e-6)
    assert 0 < found.mean < found.largest <= 1


def test_what_a_pixel_costs_is_image_map_and_its_part_of_the_weights(repository: Path) -> None:
    subject = Subject.open("d4", "cpu", "float32", 30, repository=repository)
    assert padded_side(subject.engine, 30) == 32 + 2 * 8
    assert subject.profile.shape == (1, 1, 48, 48)
    assert subject.cost.least_bytes == pytest.approx(4 + 4 + subject.entry.path.stat().st_size / 48**2)
    assert subject.cost.layer_bytes is not None
    assert subject.cost.layer_bytes > subject.cost.least_bytes
