from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from emboundary.service.errors import OutputError
from emboundary.training.config import TrainConfig
from emboundary.training.crops.data import LabelledVolume
from emboundary.training.learning.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from emboundary.training.learning.state import TrainState, new_state
from emboundary.training.learning.train import Segmentation

CPU = torch.device("cpu")


@pytest.fixture
def config(make_config: Callable[[], TrainConfig]) -> TrainConfig:
    return make_config()


@pytest.fixture
def state(volume: LabelledVolume, make_config: Callable[[], TrainConfig]) -> TrainState:
    state = new_state(Segmentation(make_config(), (volume,)), CPU)
    state.network(torch.ones(1, 1, 8, 8)).sum().backward()
    state.optimiser.step()
    state.step, state.losses = 1, [0.1 + 0.2]
    return state


@pytest.fixture
def other(volume: LabelledVolume, make_config: Callable[[dict[str, Any]], TrainConfig]) -> TrainState:
    return new_state(Segmentation(make_config({"seed": 1}), (volume,)), CPU)


def test_a_state_is_restored_to_the_bit(
    tmp_path: Path, config: TrainConfig, state: TrainState, other: TrainState
) -> None:
    save_checkpoint(tmp_path / "c.pt", state, config)
    load_checkpoint(tmp_path / "c.pt", other, config)
    for name in ("learner", "average"):
        before, after = getattr(state, name).state_dict(), getattr(other, name).state_dict()
        assert before.keys() == after.keys()
        assert all(torch.equal(before[key], after[key]) for key in before)
    torch.testing.assert_close(other.optimiser.state_dict(), state.optimiser.state_dict(), rtol=0, atol=0)
    assert (other.step, other.losses) == (1, [0.1 + 0.2])


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_while_writing_leaves_the_old_one(
    tmp_path: Path,
    config: TrainConfig,
    state: TrainState,
    other: TrainState,
    monkeypatch: pytest.MonkeyPatch,
    failure: BaseException,
) -> None:
    path = tmp_path / "c.pt"
    save_checkpoint(path, state, config)
    before = path.read_bytes()

    def fail(_: object, file: Any) -> None:
        file.write(b"half a checkpoint")
        raise failure

    monkeypatch.setattr("emboundary.training.learning.checkpoint.torch.save", fail)
    with pytest.raises((OutputError, KeyboardInterrupt)) as stopped:
        save_checkpoint(path, other, config)
    if isinstance(failure, OSError):
        assert str(stopped.value) == (
            f"{path} cannot be written: No space left on device; give an output folder that can be written and has "
            "space left"
        )
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_another_configuration_is_refused(tmp_path: Path, config: TrainConfig, state: TrainState) -> None:
    path = tmp_path / "c.pt"
    save_checkpoint(path, state, config)
    with pytest.raises(CheckpointError) as refused:
        load_checkpoint(path, state, config.model_copy(update={"seed": 1}))
    assert str(refused.value) == (
        f"{path} was written under another configuration; give another output folder, or delete it to start over"
    )


@pytest.mark.parametrize("keep", [0, 100, -100])
def test_a_damaged_file_is_refused(tmp_path: Path, config: TrainConfig, state: TrainState, keep: int) -> None:
    path = tmp_path / "c.pt"
    save_checkpoint(path, state, config)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError) as refused:
        load_checkpoint(path, state, config)
    assert str(refused.value).startswith(f"{path} cannot be read as a checkpoint: ")
    assert str(refused.value).endswith("; delete it to start over")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("content", [{"config": "{}"}, {"weights": 1}, [1, 2]])
def test_a_file_of_something_else_is_refused(
    tmp_path: Path, config: TrainConfig, state: TrainState, content: object
) -> None:
    torch.save(content, tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match="cannot be read as a checkpoint: "):
        load_checkpoint(tmp_path / "c.pt", state, config)
