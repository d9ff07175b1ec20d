from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from emboundary.model.group_conv import turn
from emboundary.model.groups import D4
from emboundary.model.inception import Segmenter
from emboundary.training.config import TrainConfig
from emboundary.training.crops.data import LabelledVolume
from emboundary.training.learning.supervision import Supervised
from emboundary.training.learning.train import train

MakeConfig = Callable[..., TrainConfig]


@pytest.mark.parametrize("symmetry", ["plain", "paper", "d4"])
def test_the_first_logit_is_the_networks_own(network: Callable[[str], Segmenter], symmetry: str) -> None:
    net = network(symmetry)
    image = torch.randn(2, 1, 32, 24, generator=torch.manual_seed(0))
    with torch.no_grad():
        logits = Supervised(net, deep=True).eval()(image)
        assert torch.equal(logits[0], net(image))
    assert [tuple(logit.shape) for logit in logits] == [(2, 1, 32, 24)] * 4
    assert len(Supervised(net, deep=False)(image)) == 1


def test_auxiliary_logits_of_d4_are_equivariant_too(network: Callable[[str], Segmenter]) -> None:
    supervised = Supervised(network("d4"), deep=True).eval()
    image = torch.randn(1, 1, 32, 32, generator=torch.manual_seed(0))
    with torch.no_grad():
        upright = supervised(image)
        for element in D4.elements:
            for turned, logit in zip(supervised(turn(element, image)), upright, strict=True):
                torch.testing.assert_close(turned, turn(element, logit), rtol=0, atol=1e-4)


def test_auxiliary_logits_learn_and_resume_with_the_network(
    tmp_path: Path, make_config: MakeConfig, volume: LabelledVolume
) -> None:
    deep: dict[str, Any] = {"loss": {"deep": 0.5, "dice": 0.5}}
    config = make_config(deep)
    straight = train(config, (volume,), tmp_path / "straight", device=torch.device("cpu"))
    train(config, (volume,), tmp_path / "resumed", device=torch.device("cpu"), stop_after=2)
    resumed = train(config, (volume,), tmp_path / "resumed", device=torch.device("cpu"))
    weights = [s.learner.state_dict() for s in (straight, resumed)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    auxiliary = [name for name in weights[0] if name.startswith("auxiliary")]
    assert len(auxiliary) == 6, "weight and bias of three logits"
    without = train(make_config(), (volume,), tmp_path / "without", device=torch.device("cpu"))
    assert without.losses != straight.losses
    assert set(without.average.state_dict()) == set(straight.average.state_dict()), "nothing of it is left behind"
