"""A whole study, from nothing to its page, and again for nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from emboundary.service import console
from emboundary.training import compare as comparing
from emboundary.training.cli import NAME, create_cli
from emboundary.training.compare import joins, loss_means
from emboundary.training.comparing import working
from emboundary.training.comparing.records import Results, RunScores
from emboundary.training.comparing.scoring import open_engine
from emboundary.training.config import TrainConfig
from emboundary.training.crops.data import load_volume
from emboundary.training.scoring.evaluate import segment
from emboundary.training.scoring.thresholds import boundary_threshold
from emboundary.training.study import Study, load_study

MakeConfig = Callable[..., TrainConfig]

SERIES = """
[[series]]
key = "{key}"
title = "Series {key}"
models = {models}
seeds = [0]
train = ["synthetic"]
score = ["synthetic"]
"""


@pytest.fixture(scope="module")
def study(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of d4 and plain, and of a second d4 on one section that is never trained."""
    folder = tmp_path_factory.mktemp("study")
    tiny = (trained.parent / "tiny.toml").read_text()
    tiny = tiny.replace("sections = [0, 4]", "sections = [0, 4]\nvalidation = [4, 6]").replace("steps = 6", "steps = 2")
    for model in ("d4", "plain"):
        named = tiny.replace('"tiny"', f'"{model}"').replace('symmetry = "d4"', f'symmetry = "{model}"')
        (folder / f"{model}.toml").write_text(named)
    text = 'question = "Which?"\n[models]\nd4 = "d4.toml"\nplain = "plain.toml"\n'
    text += SERIES.format(key="all", models='["d4"]') + SERIES.format(key="others", models='["plain"]')
    text += SERIES.format(key="few", models='["d4"]') + "sections = 1\n"
    (folder / "study.toml").write_text(text)
    return folder / "study.toml"


@pytest.fixture(scope="module")
def runs(study: Path) -> Path:
    """Where the study's runs are; filled by the first test that compares."""
    return study.parent / "runs"


def compare(study: Path, data: Path, runs: Path, out: Path, *more: str) -> int:
    words = ["compare", "--study", study, "--data", data, "--runs", runs, "--out", out, "--rounds", 1]
    return console.run(create_cli(), NAME, [*map(str, words), "--device", "cpu", "--threads", "1", *more])


@pytest.fixture(scope="module")
def out(study: Path, data: Path, runs: Path) -> Path:
    """Folder of the page of the finished study."""
    folder = study.parent / "docs"
    assert compare(study, data, runs, folder) == 0
    return folder


def test_a_study_is_trained_scored_and_written_down(out: Path, runs: Path) -> None:
    assert (out / "comparison.md").read_text().startswith("# Which?\n")
    results = Results.model_validate_json((out / "comparison" / "results.json").read_bytes())
    assert [(r.series, r.model, r.seed) for r in results.runs] == [
        ("all", "d4", 0),
        ("others", "plain", 0),
        ("few", "d4", 0),
    ]
    assert [[m.passes for m in r.scores.maps] for r in results.runs] == [[1], [1, 8], [1]]
    assert [s.joins for s in results.series] == [None, "all", None]
    assert (results.missing, results.study) == ((), "study.toml")
    assert results.timing is not None
    assert [(row.model, row.passes) for row in results.timing.rows] == [("d4", 1), ("plain", 1), ("plain", 8)]
    assert results.timing.rows[0].equivariance_error < 1e-5
    drawn = {path.name for path in (out / "comparison").glob("*.png")}
    assert drawn == {"gains.png", "curves.png", "losses-all.png", "costs.png", "sizes.png", "regions-synthetic.png"}
    kept = list(runs.glob("*/*/maps/*.npy"))
    assert len(kept) == 3
    assert {np.load(path).shape for path in kept} == {(2, 64, 72)}


def test_thresholds_are_chosen_on_training_sections(out: Path, study: Path, runs: Path, data: Path) -> None:
    results = Results.model_validate_json((out / "comparison" / "results.json").read_bytes())
    run = load_study(study).of("all")[0]
    training = load_volume(data, run.scored[0], (0, 4))
    probability, _ = segment(open_engine(runs / run.folder, "cpu"), training)
    (scored,) = results.runs[0].scores.maps
    assert scored.v_rand.threshold == scored.v_info.threshold == boundary_threshold(training.target, probability)
    assert scored.sections == (4, 6)


def test_a_finished_study_is_written_again_for_nothing(
    study: Path, data: Path, runs: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name in ((working, "fit"), (comparing, "time_contestants"), (comparing, "open_engine")):
        monkeypatch.setattr(module, name, None)
    monkeypatch.setattr("emboundary.training.comparing.scoring.open_engine", None)
    assert compare(study, data, runs, tmp_path, "--finished-only") == 0
    for path in (p for p in out.rglob("*") if p.is_file()):
        assert (tmp_path / path.relative_to(out)).read_bytes() == path.read_bytes(), path.name


@pytest.mark.usefixtures("out")
def test_other_weights_are_scored_again(study: Path, data: Path, runs: Path, tmp_path: Path) -> None:
    few = runs / "few" / "d4-0"
    record = few / "scores.json"
    before = record.read_bytes()
    stale = json.loads(before)
    stale["weights_sha256"] = "0" * 64
    stale["maps"][0]["roc_auc"] = 0.123
    record.write_text(json.dumps(stale))
    assert compare(study, data, runs, tmp_path, "--finished-only") == 0
    again, first = (RunScores.model_validate_json(text) for text in (record.read_bytes(), before))
    assert again.weights_sha256 == first.weights_sha256
    assert again.maps[0].model_copy(update={"seconds": 0.0}) == first.maps[0].model_copy(update={"seconds": 0.0})


def test_unfinished_runs_are_trained_or_listed(
    study: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare(study, data, tmp_path / "none", tmp_path / "docs", "--finished-only") == 0
    results = Results.model_validate_json((tmp_path / "docs" / "comparison" / "results.json").read_bytes())
    assert results.missing == ("all/d4-0", "others/plain-0", "few/d4-0")
    assert "`all/d4-0`, `others/plain-0`, `few/d4-0`" in (tmp_path / "docs" / "comparison.md").read_text()
    shown = capsys.readouterr().out.splitlines()
    assert all(line.startswith("not measured: ") for line in shown)
    assert not (tmp_path / "none").exists()


def test_series_of_one_experiment_join(study: Path) -> None:
    loaded = load_study(study)
    assert [joins(loaded, key) for key in ("all", "others", "few")] == [None, "all", None]
    first, other, few = loaded.series
    other = other.model_copy(update={"models": ("d4",)})
    assert joins(Study(loaded.question, (first, other, few), loaded.runs), "others") is None, "d4 would be there twice"


def test_losses_become_means_of_stretches() -> None:
    found = loss_means(float(i) for i in range(1, 251))
    assert (found.steps[:2], found.losses[:2]) == ((2, 4), (1.5, 3.5))
    assert len(found.steps) == 125
    assert loss_means([0.5, 0.25]).losses == (0.5, 0.25)
