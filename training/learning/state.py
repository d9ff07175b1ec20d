"""Everything that a training run carries from one step to the next."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from emboundary.model.lipschitz_penalty import LipschitzPenalty
from emboundary.training.learning.recipe import LearningConfig, OptimiserConfig
from emboundary.training.learning.task import Learner, Task


@dataclass
class TrainState:
    """The networks, the optimiser and how far they are; batches depend on (seed, step) alone.

    Attributes:
        learner: the network that learns, with what only its training needs.
        average: the exponential moving average of the network's weights, which is what a run is for.
        losses: of every step.
        notes: what was measured on the way, in the order of the steps; kept with the state.
    """

    learner: Learner
    average: nn.Module
    optimiser: torch.optim.Optimizer
    step: int
    losses: list[float]
    notes: list[dict[str, Any]] = field(default_factory=list)

    @property
    def network(self) -> nn.Module:
        """The network that learns."""
        return self.learner.network


def new_state(task: Task[LearningConfig], device: torch.device) -> TrainState:
    """A network, its average and its optimiser; the task's seed determines all."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(task.config.seed)
        learner = task.learner()
    if task.config.lipschitz:
        learner.penalty = LipschitzPenalty(learner.network, seed=task.config.seed)
    learner = learner.to(device).train()
    average = copy.deepcopy(learner.network).requires_grad_(False)
    return TrainState(learner, average, _optimiser(task.config.optimiser, learner), step=0, losses=[])


def _optimiser(config: OptimiserConfig, learner: Learner) -> torch.optim.Optimizer:
    rate, decay = config.learning_rate, config.weight_decay
    if config.algorithm == "sgd":
        return torch.optim.SGD(learner.parameters(), lr=rate, momentum=config.momentum, weight_decay=decay)
    return torch.optim.AdamW(learner.parameters(), lr=rate, weight_decay=decay)
