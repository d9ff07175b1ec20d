from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from matplotlib.image import imread

from emboundary.training.experimenting.file import find_experiment
from emboundary.training.experimenting.outcome import Outcome
from emboundary.training.experimenting.page import experiment_page
from emboundary.training.experimenting.pictures import draw
from emboundary.training.experimenting.plan import Experiment, load_experiment

POINT = {"step": 1.0, "seconds": 60.0, "train_error": 5.0, "test_error": 8.0, "train_loss": 0.1, "test_loss": 0.2}


@pytest.fixture
def loaded() -> Experiment:
    return load_experiment(find_experiment("rotated-mnist"), "cpu")


def outcome(variant: str, seed: int, error: float) -> Outcome:
    return Outcome(
        variant=variant,
        seed=seed,
        parameters=12345,
        flops=2.5e6,
        per="image",
        final_loss=0.125,
        scores={"test error %": error},
        curve=[POINT, {**POINT, "train_loss": 0.05}],
        seconds=90.0,
    )


def outcomes(**errors: tuple[float, float]) -> list[Outcome]:
    return [outcome(variant, seed, error) for variant, pair in errors.items() for seed, error in enumerate(pair)]


def test_a_row_holds_costs_mean_and_deviation_and_the_published_figure(loaded: Experiment) -> None:
    found = outcomes(Z2CNN=(8.0, 9.0), P4CNNRotationPooling=(4.0, 4.0), P4CNN=(2.0, 2.5))
    page = experiment_page(loaded, found, {}, ["a.png"])
    assert page.startswith("# Is premature invariance worse")
    assert (
        "| variant | parameters | MFLOP/image | minutes | final loss | test error % | published test error % |" in page
    )
    assert "| Z2CNN | 12,345 | 2.5 | 1.5 | 0.1250 ± 0.0000 | 8.50 ± 0.71 | 5.03 |" in page
    assert "rotated-mnist, all training and all test images, batches of 64; 940 steps; seeds 0, 1, 2: mean ±" in page
    assert page.endswith("](a.png)\n")


def test_times_stand_beside_other_costs_and_scores(loaded: Experiment, tmp_path: Path) -> None:
    found = outcomes(Z2CNN=(8.0, 9.0), P4CNN=(2.0, 2.5))
    times = {"Z2CNN": [1.0, 1.0, 1.0], "P4CNN": [1.5, 4.0, 1.25]}
    page = experiment_page(loaded, found, times, [])
    assert "| variant | parameters | MFLOP/image | time, Z2CNN = 1 | minutes |" in page
    assert "| P4CNN | 12,345 | 2.5 | 1.50 | 1.5 |" in page
    widths = []
    for given in (times, {}):
        draw(loaded, found, given, tmp_path)
        widths.append(cast(int, imread(tmp_path / "rotated-mnist.png").shape[1]))
    assert widths[0] > widths[1]


def test_the_published_order_is_judged_by_means_and_seed_by_seed(loaded: Experiment) -> None:
    found = outcomes(Z2CNN=(8.0, 9.0), P4CNNRotationPooling=(4.0, 4.0), P4CNN=(2.0, 4.5))
    page = experiment_page(loaded, found, {}, [])
    assert "**It came out the same here.**" in page
    assert "P4CNN against P4CNNRotationPooling: better by 0.75, in 1 of 2 seeds" in page
    assert "P4CNNRotationPooling against Z2CNN: better by 4.5, in 2 of 2 seeds." in page


def test_another_order_is_said(loaded: Experiment) -> None:
    found = outcomes(Z2CNN=(3.0, 3.0), P4CNNRotationPooling=(4.0, 4.0), P4CNN=(2.0, 2.0))
    page = experiment_page(loaded, found, {}, [])
    assert "**Here it is another: P4CNN, Z2CNN, P4CNNRotationPooling.**" in page
    assert "better by -1, in 0 of 2 seeds" in page


def test_where_larger_is_better_the_order_is_the_other_way_round(loaded: Experiment) -> None:
    by_area = replace(loaded, score="vnc AUC")
    found = [
        replace(o, scores={"vnc AUC": 1 - o.scores["test error %"] / 100})
        for o in outcomes(Z2CNN=(8.0, 8.0), P4CNN=(2.0, 2.0))
    ]
    assert "**It came out the same here.** P4CNN against Z2CNN: better by 0.06, in 2 of 2 seeds." in experiment_page(
        by_area, found, {}, []
    )


def test_pictures_are_of_scores_and_of_what_was_scored_on_the_way(loaded: Experiment, tmp_path: Path) -> None:
    found = outcomes(Z2CNN=(8.0, 9.0), P4CNN=(2.0, 2.5))
    assert draw(loaded, found, {}, tmp_path) == ["rotated-mnist.png", "rotated-mnist-scatter.png"]
    ended = [replace(o, curve=[POINT]) for o in found]
    assert draw(replace(loaded, score=None), ended, {}, tmp_path) == []
