from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emboundary.model import scores
from emboundary.training.compare import Comparison, Row
from emboundary.training.data import LabelledVolume
from emboundary.training.evaluate import scores_of
from emboundary.training.figures import loss_curve, maps, score_curves


def make_comparison(volume: LabelledVolume, *, contestants: int, seed: int = 0) -> Comparison:
    rng = np.random.default_rng(seed)
    noisy = [(volume.target + rng.normal(0, 0.2 + 0.1 * i, volume.raw.shape)) for i in range(contestants)]
    found = tuple(np.clip(m, 0, 1).astype(np.float32) for m in noisy)
    curves = tuple(scores.curve(volume.target, m) for m in found)
    rows = tuple(Row(f"network {i}", 1, scores_of(c), 1.0, 1.0, 0.0) for i, c in enumerate(curves))
    return Comparison(rows, curves, found)


@pytest.fixture(scope="module")
def comparison(volume: LabelledVolume) -> Comparison:
    return make_comparison(volume, contestants=4)


def picture(path: Path) -> tuple[str | None, tuple[int, int]]:
    with Image.open(path) as image:
        image.load()
        return image.format, image.size


@pytest.mark.parametrize("steps", [1, 10, 300])
def test_the_loss_curve_is_a_picture(tmp_path: Path, steps: int) -> None:
    loss_curve(tmp_path / "loss.png", list(np.linspace(0.7, 0.2, steps)), title="d4")
    assert picture(tmp_path / "loss.png") == ("PNG", (770, 396))


def test_the_score_curves_are_a_picture(tmp_path: Path, comparison: Comparison) -> None:
    score_curves(tmp_path / "curves.png", comparison, title="a volume")
    assert picture(tmp_path / "curves.png") == ("PNG", (1210, 550))


@pytest.mark.parametrize(("contestants", "rows"), [(2, 1), (4, 2), (6, 2), (7, 3)])
def test_the_maps_are_a_picture_of_rows_of_four(
    tmp_path: Path, volume: LabelledVolume, contestants: int, rows: int
) -> None:
    maps(tmp_path / "maps.png", make_comparison(volume, contestants=contestants), volume)
    assert picture(tmp_path / "maps.png") == ("PNG", (1364, rows * 363))


def test_more_contestants_than_colours_are_all_drawn(tmp_path: Path, volume: LabelledVolume) -> None:
    eight = make_comparison(volume, contestants=8)
    first = Comparison(eight.rows[:7], eight.curves[:7], eight.maps[:7])
    score_curves(tmp_path / "eight.png", eight, title="t")
    score_curves(tmp_path / "seven.png", first, title="t")
    assert (tmp_path / "eight.png").read_bytes() != (tmp_path / "seven.png").read_bytes()


def test_same_data_same_bytes_and_other_data_others(tmp_path: Path, volume: LabelledVolume) -> None:
    comparison, other = (make_comparison(volume, contestants=2, seed=seed) for seed in (0, 1))
    brighter = replace(volume, raw=volume.raw**2)
    draw: dict[str, Callable[[Path, int], None]] = {
        "curves": lambda path, which: score_curves(path, (comparison, other)[which], title="t"),
        "maps": lambda path, which: maps(path, (comparison, other)[which], volume),
        "raw": lambda path, which: maps(path, comparison, (volume, brighter)[which]),
        "loss": lambda path, which: loss_curve(path, [0.7, 0.5, (0.3, 0.4)[which]], title="t"),
    }
    for name, function in draw.items():
        one, again, another = (tmp_path / f"{name}{i}" for i in range(3))
        for path, which in ((one, 0), (again, 0), (another, 1)):
            function(path, which)
        assert one.read_bytes() == again.read_bytes(), name
        assert one.read_bytes() != another.read_bytes(), name
