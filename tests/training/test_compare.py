from __future__ import annotations

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from emboundary.model.geometry import Footprint
from emboundary.training.compare import Comparison, Contestant, Row, as_markdown, as_records, compare
from emboundary.training.data import LabelledVolume
from emboundary.training.evaluate import Scores, score

Map = NDArray[np.float32]

FOOTPRINT = Footprint((0, 8, 8), (1, 8, 8))


@dataclass(frozen=True)
class Darkness:
    """Dark is boundary, the more so the further right: a network that is not symmetric."""

    slope: float
    footprint: Footprint = FOOTPRINT
    outputs: tuple[str, ...] = ("boundary",)

    def run(self, images: Map) -> Map:
        return (1 / (1 + np.exp(images - np.linspace(0, self.slope, images.shape[-1])))).astype(np.float32)


@pytest.fixture(scope="module")
def contestants() -> tuple[Contestant, ...]:
    first = Darkness(2.0)
    return (
        Contestant("first", first),
        Contestant("first, mean", first, "mean"),
        Contestant("first, vote", first, "vote"),
        Contestant("second", Darkness(0.0)),
    )


@pytest.fixture(scope="module")
def comparison(contestants: tuple[Contestant, ...], volume: LabelledVolume) -> Comparison:
    return compare(contestants, volume, rounds=2)


def test_every_contestant_has_a_row_a_curve_and_a_map(comparison: Comparison, volume: LabelledVolume) -> None:
    assert [row.label for row in comparison.rows] == ["first", "first, mean", "first, vote", "second"]
    assert [row.passes for row in comparison.rows] == [1, 8, 8, 1]
    assert len(comparison.curves) == len(comparison.maps) == 4
    for row, probability in zip(comparison.rows, comparison.maps, strict=True):
        assert probability.shape == volume.raw.shape
        assert row.scores == score(volume.target, probability)


def test_passes_are_joined_as_asked(comparison: Comparison) -> None:
    one, mean, vote, _ = comparison.maps
    assert not np.allclose(one, mean)
    assert set(np.unique(vote * 8)) <= set(range(9))
    assert len(np.unique(vote)) > 2


def test_seconds_are_relative_to_the_first(comparison: Comparison) -> None:
    assert comparison.rows[0].relative_seconds == 1.0
    assert all(row.seconds > 0 for row in comparison.rows)


def test_the_ratio_is_taken_within_each_round(
    contestants: tuple[Contestant, ...], volume: LabelledVolume, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The machine becomes ten times slower with every round; the second contestant always takes twice as long.
    seconds = iter([1.0, 2.0, 10.0, 20.0, 100.0, 200.0])
    now = [0.0]

    def clock() -> float:
        return now[0]

    def predict(*_: object, **__: object) -> None:
        now[0] += next(seconds)

    monkeypatch.setattr("emboundary.training.compare.time.perf_counter", clock)
    monkeypatch.setattr("emboundary.training.compare.predict_array", predict)
    rows = compare((contestants[0], contestants[3]), volume, rounds=3).rows
    assert [(row.seconds, row.relative_seconds) for row in rows] == [(10.0, 1.0), (20.0, 2.0)]


def test_the_equivariance_error_is_measured(comparison: Comparison) -> None:
    one, mean, _, second = comparison.rows
    assert one.equivariance_error > 0.1
    assert mean.equivariance_error < 1e-6
    assert second.equivariance_error < 1e-6


def test_what_it_does_is_told(contestants: tuple[Contestant, ...], volume: LabelledVolume) -> None:
    lines: list[str] = []
    compare(contestants[:1], volume, rounds=1, report=lines.append)
    assert lines == ["scoring first", "timing, 1 rounds"]


def test_no_rounds_and_no_contestants_are_refused(contestants: tuple[Contestant, ...], volume: LabelledVolume) -> None:
    with pytest.raises(ValueError, match=r"^rounds is 0; at least one is needed to measure seconds$"):
        compare(contestants, volume, rounds=0)
    with pytest.raises(ValueError, match=r"^contestants is empty; the first is what the others' seconds are compared"):
        compare((), volume, rounds=1)


ROW = Row("plain", 8, Scores(0.98123456, 0.93216, 0.87654, 0.4), 1.234, 8.126, 1.23e-6)


def test_the_table_in_markdown_has_every_row() -> None:
    lines = as_markdown((ROW, replace(ROW, label="d4", passes=1))).splitlines()
    assert len(lines) == 4
    assert lines[2] == "| plain | 8 | 0.98123 | 0.9322 | 0.8765 | 1.23 | 8.13 | 1.2e-06 |"
    assert lines[3].startswith("| d4 | 1 | ")
    assert len({line.count("|") for line in lines}) == 1


def test_the_table_in_json_has_every_digit(comparison: Comparison) -> None:
    records = json.loads(json.dumps(as_records(comparison.rows)))
    assert [record["label"] for record in records] == [row.label for row in comparison.rows]
    for record, row in zip(records, comparison.rows, strict=True):
        assert Row(**(record | {"scores": Scores(**record["scores"])})) == row
