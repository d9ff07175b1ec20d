"""What the training loop is given: a network that learns, batches, and a loss."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from emboundary.training.learning.recipe import LearningConfig

Batch = tuple[NDArray[np.generic], ...]
Config = TypeVar("Config", bound=LearningConfig, covariant=True)


class Learner(nn.Module):
    """A network with what only its training needs beside it (auxiliary logits, say).

    ``forward`` takes the batch's images and gives what the task's loss takes.

    Attributes:
        network: the part that a run is for; its weights are averaged and kept.
        penalty: what is added to the loss whatever the batch, if anything is; a scalar.
    """

    network: nn.Module

    def __init__(self) -> None:
        super().__init__()
        self.penalty: nn.Module | None = None


class Task(Protocol[Config]):
    """A kind of learning: segmenting crops, classifying images.

    Batches and what is random in a forward pass depend on (seed, step) alone, so that a resumed run ends with the
    same bits.
    """

    @property
    def config(self) -> Config:
        """Everything that determines the run."""

    @property
    def pixels(self) -> int:
        """Pixels of a batch: the unit of the loop's throughput."""

    def learner(self) -> Learner:
        """A new network with its first weights; drawn under the configuration's seed."""

    def batch(self, step: int) -> Batch:
        """Images, then targets; called from several threads."""

    def loss(self, learner: Learner, outputs: Any, *targets: Tensor) -> Tensor:
        """What is minimised, a scalar in float32."""
