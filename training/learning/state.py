"""Everything that a training run carries from one step to the next."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import torch

from emboundary.model.inception import Segmenter
from emboundary.model.repository import ModelError, load_model
from emboundary.model.weights import WeightsError, load_segmenter
from emboundary.training.config import TrainConfig
from emboundary.training.learning.supervision import Supervised
from emboundary.training.strict import ConfigError

WEIGHTS = "weights.safetensors"
_PACKAGE = Path(__file__).parents[1]


@dataclass
class TrainState:
    """The networks, the optimiser and how far they are; batches depend on (seed, step) alone.

    Attributes:
        supervised: the network that learns, with its auxiliary logits.
        average: the exponential moving average of the network's weights, which is what a run is for.
        losses: of every step.
    """

    supervised: Supervised
    average: Segmenter
    optimiser: torch.optim.Optimizer
    step: int
    losses: list[float]

    @property
    def network(self) -> Segmenter:
        """The network that learns."""
        return self.supervised.network


def new_state(config: TrainConfig, device: torch.device) -> TrainState:
    """A network, its average and its optimiser; the seed, and the weights to start from, determine all.

    Raises:
        ConfigError: weights to start from that cannot be read, or are of another network than ``config.model``.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = Segmenter(config.model.spec())
        supervised = Supervised(network, deep=config.loss.deep > 0)
    if config.start is not None:
        network.load_state_dict(_started(config.start, config).state_dict())
    supervised = supervised.to(device).train()
    average = copy.deepcopy(supervised.network).requires_grad_(False)
    optimiser = torch.optim.AdamW(
        supervised.parameters(), lr=config.optimiser.learning_rate, weight_decay=config.optimiser.weight_decay
    )
    return TrainState(supervised, average, optimiser, step=0, losses=[])


def _started(start: str, config: TrainConfig) -> Segmenter:
    path = Path(start)
    try:
        if path.suffix != ".safetensors":
            path = load_model(start).path.with_name(WEIGHTS)
        elif not path.exists() and (_PACKAGE / path).exists():
            path = _PACKAGE / path
        network = load_segmenter(path)
    except (ModelError, WeightsError, OSError) as error:
        raise ConfigError(
            f"start is {start!r}: {error}; give a bundled model's name, or the path of a model folder or of a "
            ".safetensors file that training wrote"
        ) from error
    if network.spec != config.model.spec():
        raise ConfigError(
            f"start is {start!r}, whose network is {network.spec}; it must be the one of [model], "
            f"{config.model.spec()}: take over its widths and symmetry, or leave start out"
        )
    return network
