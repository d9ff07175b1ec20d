from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import SafetensorError

from emboundary.service.errors import OutputError
from emboundary.training.config import TrainConfig
from emboundary.training.crops.data import DataError, load_volume
from emboundary.training.learning import runs
from emboundary.training.learning.loop import CHECKPOINT
from emboundary.training.learning.runs import RunError, fit, load_run
from emboundary.training.learning.train import train

MakeConfig = Callable[..., TrainConfig]

CPU = torch.device("cpu")
FILES = {"config.json", "checkpoint.pt", "loss.csv", "loss.png", "weights.safetensors"}


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, to be damaged."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def test_a_run_leaves_its_files_and_no_others(trained: Path) -> None:
    assert {path.name for path in trained.iterdir()} == FILES | {"model"}
    with Image.open(trained / "loss.png") as picture:
        assert picture.format == "PNG"


def test_the_loss_of_every_step_is_written_to_the_digit(trained: Path) -> None:
    with (trained / "loss.csv").open() as file:
        rows = list(csv.DictReader(file))
    stored = torch.load(trained / CHECKPOINT, weights_only=True)
    assert [(int(row["step"]), float(row["loss"])) for row in rows] == list(enumerate(stored["losses"], start=1))
    assert len(rows) == 6


def test_a_run_is_read_as_it_was_written(trained: Path, make_config: MakeConfig) -> None:
    run = load_run(trained)
    stored = torch.load(trained / CHECKPOINT, weights_only=True)
    assert run.config == make_config()
    assert run.final_loss == pytest.approx(sum(stored["losses"]) / 6)
    assert not run.network.training
    state = run.network.state_dict()
    assert state.keys() == stored["average"].keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in stored["average"].items())


def test_a_finished_run_is_given_back_without_training(copy: Path, data: Path, make_config: MakeConfig) -> None:
    before = (copy / "weights.safetensors").read_bytes()
    steps: list[int] = []
    run = fit(make_config(), data, copy, device=CPU, report=lambda r: steps.append(r.step))
    assert steps == []
    assert (copy / "weights.safetensors").read_bytes() == before
    assert run.final_loss == load_run(copy).final_loss


def test_an_interrupted_run_is_taken_up_and_ends_the_same(
    trained: Path, data: Path, tmp_path: Path, make_config: MakeConfig
) -> None:
    volume = load_volume(data, make_config().data[0])
    train(make_config(), (volume,), tmp_path, device=CPU, stop_after=2)
    steps: list[int] = []
    fit(make_config(), data, tmp_path, device=CPU, report=lambda r: steps.append(r.step))
    assert steps == [3, 4, 5, 6]
    for name in FILES - {CHECKPOINT}:  # equal in its tensors, which a pickle may share differently
        assert (tmp_path / name).read_bytes() == (trained / name).read_bytes(), name


def test_the_run_of_another_configuration_is_refused(copy: Path, data: Path, make_config: MakeConfig) -> None:
    before = {path: path.read_bytes() for path in copy.iterdir() if path.is_file()}
    with pytest.raises(RunError) as refused:
        fit(make_config({"seed": 1}), data, copy, device=CPU)
    assert str(refused.value) == f"{copy} holds a run of another configuration; give another --out"
    assert {path: path.read_bytes() for path in copy.iterdir() if path.is_file()} == before


def test_missing_data_leave_no_run(tmp_path: Path, make_config: MakeConfig) -> None:
    with pytest.raises(DataError, match="does not exist; give the folder of the training data with --data"):
        fit(make_config(), tmp_path, tmp_path / "run", device=CPU)
    assert not (tmp_path / "run").exists()


def test_an_output_that_is_a_file_is_refused(tmp_path: Path, data: Path, make_config: MakeConfig) -> None:
    (tmp_path / "run").touch()
    with pytest.raises(OutputError) as refused:
        fit(make_config(), data, tmp_path / "run", device=CPU)
    assert str(refused.value) == (
        f"{tmp_path / 'run' / 'config.json'} cannot be written: File exists; give an output folder that can be written "
        "and has space left"
    )


def test_a_disk_that_is_full_at_the_end_leaves_an_unfinished_run(
    copy: Path, data: Path, make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    (copy / "weights.safetensors").unlink()

    def fail(_: object, path: Path) -> None:
        path.write_bytes(b"half of the weights")
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(runs, "save_segmenter", fail)
    with pytest.raises(OutputError, match=r"weights\.safetensors cannot be written: .*No space left on device"):
        fit(make_config(), data, copy, device=CPU)
    assert {path.name for path in copy.iterdir() if path.is_file()} == FILES - {"weights.safetensors"}
    with pytest.raises(RunError, match=r"holds no weights.safetensors: the run is not complete; run fit again"):
        load_run(copy)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError) as refused:
        load_run(tmp_path)
    assert str(refused.value) == f"{tmp_path} holds no config.json; give the --out folder of `emboundary-train fit`"


def remove(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def scramble(path: Path) -> None:
    path.write_text("step,height\n1,2\n")


@pytest.mark.parametrize(
    ("name", "damage"),
    [("weights.safetensors", cut), ("loss.csv", remove), ("loss.csv", scramble)],
)
def test_a_damaged_run_is_refused(copy: Path, name: str, damage: Callable[[Path], Any]) -> None:
    damage(copy / name)
    with pytest.raises(RunError) as refused:
        load_run(copy)
    assert str(refused.value).startswith(f"{copy} is damaged: ")
    assert str(refused.value).endswith("; run fit again to write its files anew")
