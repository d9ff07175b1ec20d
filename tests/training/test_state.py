from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from emboundary.model.weights import load_segmenter
from emboundary.training.config import TrainConfig
from emboundary.training.crops.data import LabelledVolume
from emboundary.training.learning.state import new_state
from emboundary.training.learning.train import Segmentation, train
from emboundary.training.strict import ConfigError

MakeConfig = Callable[..., TrainConfig]

CPU = torch.device("cpu")


def test_training_starts_from_the_weights_it_is_given(
    volume: LabelledVolume, trained: Path, make_config: MakeConfig
) -> None:
    weights = trained / "weights.safetensors"
    state = new_state(Segmentation(make_config({"start": str(weights)}), (volume,)), CPU)
    expected = load_segmenter(weights).state_dict()
    for net in (state.network, state.average):
        assert all(torch.equal(tensor, expected[name]) for name, tensor in net.state_dict().items())
    fresh = new_state(Segmentation(make_config(), (volume,)), CPU).network.state_dict()
    assert any(not torch.equal(tensor, expected[name]) for name, tensor in fresh.items())


def test_a_model_folder_is_a_start_too(volume: LabelledVolume, published: Path, make_config: MakeConfig) -> None:
    state = new_state(Segmentation(make_config({"start": str(published)}), (volume,)), CPU)
    expected = load_segmenter(published / "weights.safetensors").state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in state.network.state_dict().items())


def test_a_start_does_not_change_what_else_the_seed_determines(
    tmp_path: Path, trained: Path, make_config: MakeConfig, volume: LabelledVolume
) -> None:
    config = make_config({"start": str(trained / "weights.safetensors"), "loss": {"deep": 0.5}})
    first, again = (train(config, (volume,), tmp_path / name, device=CPU) for name in ("a", "b"))
    assert first.losses == again.losses


@pytest.mark.parametrize(
    ("start", "reason"),
    [("none-such", "model 'none-such' not found"), ("nowhere/weights.safetensors", "cannot be read")],
)
def test_a_start_that_cannot_be_read_is_refused(
    volume: LabelledVolume, make_config: MakeConfig, start: str, reason: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        new_state(Segmentation(make_config({"start": start}), (volume,)), CPU)
    assert str(refused.value).startswith(f"start is {start!r}: ")
    assert reason in str(refused.value)
    assert "give a bundled model's name, or the path of a model folder" in str(refused.value)


def test_a_start_of_another_network_is_refused(volume: LabelledVolume, trained: Path, make_config: MakeConfig) -> None:
    with pytest.raises(ConfigError, match=r"it must be the one of \[model\], .*: take over its widths and symmetry"):
        new_state(
            Segmentation(make_config({"start": str(trained / "weights.safetensors"), "model.a": 16}), (volume,)), CPU
        )


def test_a_key_that_has_come_since_does_not_end_an_old_run(
    tmp_path: Path, make_config: MakeConfig, volume: LabelledVolume
) -> None:
    """A checkpoint is taken up by what its configuration says: a key left out stands for its default."""
    config = make_config()
    train(config, (volume,), tmp_path, device=CPU, stop_after=1)
    path = tmp_path / "checkpoint.pt"
    stored = torch.load(path, weights_only=True)
    said = json.loads(stored["config"])
    del said["loss"], said["channels_last"]
    torch.save({**stored, "config": json.dumps(said)}, path)
    assert train(config, (volume,), tmp_path, device=CPU, stop_after=2).step == 2
