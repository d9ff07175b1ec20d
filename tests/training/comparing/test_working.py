from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from emboundary.training.comparing import working
from emboundary.training.comparing.working import Task, complete, is_finished
from emboundary.training.config import TrainConfig
from emboundary.training.learning.runs import RunError
from emboundary.training.study import StudyRun

MakeConfig = Callable[..., TrainConfig]


@pytest.fixture
def console() -> Console:
    return Console(stderr=True, quiet=True)


def task(run: StudyRun, folder: Path, data: Path) -> Task:
    return Task(run, folder, data, "cpu", "cpu", keep=False)


def study_run(config: TrainConfig) -> StudyRun:
    volume = config.data[0].model_copy(update={"validation": (4, 6)})
    return StudyRun("all", "d4", config.seed, config, (volume,))


def test_a_run_is_finished_once_its_weights_are_there(trained: Path, tmp_path: Path, make_config: MakeConfig) -> None:
    assert is_finished(study_run(make_config()), trained)
    assert not is_finished(study_run(make_config()), tmp_path)


def test_the_run_of_another_configuration_is_refused(trained: Path, make_config: MakeConfig) -> None:
    with pytest.raises(RunError) as refused:
        is_finished(study_run(make_config({"seed": 1})), trained)
    assert str(refused.value) == (
        f"{trained} holds a run of another configuration than the study's; give another --runs, or remove the folder"
    )


def test_what_is_finished_is_scored_and_not_trained_again(
    trained: Path,
    data: Path,
    tmp_path: Path,
    make_config: MakeConfig,
    console: Console,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    did: list[str] = []
    monkeypatch.setattr(working, "fit", lambda *given, **_: did.append(f"fit {given[2].name}"))
    monkeypatch.setattr(working, "score_run", lambda *given, **_: did.append(f"score {given[1].name}"))
    run = study_run(make_config())
    complete([task(run, trained, data), task(run, tmp_path / "new", data)], console, jobs=1, threads=None)
    assert did == ["score run", "fit new", "score new"]


def test_a_failure_in_another_process_is_raised_here(
    data: Path, make_config: MakeConfig, trained: Path, console: Console
) -> None:
    wrong = study_run(make_config({"seed": 1}))
    with pytest.raises(RunError, match="holds a run of another configuration"):
        complete([task(wrong, trained, data)], console, jobs=2, threads=1)
