"""Training of segmenters: crops of labelled volumes, the losses on their boundaries."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from emboundary.model.inception import Segmenter
from emboundary.model.repository import ModelError, load_model
from emboundary.model.weights import WeightsError, load_segmenter
from emboundary.training.config import TrainConfig
from emboundary.training.crops.data import CropSampler, LabelledVolume
from emboundary.training.learning.loop import StepReport, learn
from emboundary.training.learning.losses import centre_lines, total_loss
from emboundary.training.learning.state import TrainState
from emboundary.training.learning.supervision import Supervised
from emboundary.training.learning.task import Batch, Learner
from emboundary.training.strict import ConfigError

WEIGHTS = "weights.safetensors"
_PACKAGE = Path(__file__).parents[1]


class Segmentation:
    """The task of a segmenter: the boundaries of crops that are drawn from labelled volumes."""

    def __init__(self, config: TrainConfig, volumes: tuple[LabelledVolume, ...]) -> None:
        self.config = config
        self._sampler = CropSampler(volumes, config.sampling, config.augment, config.seed, config.model.context)

    @property
    def pixels(self) -> int:
        return self.config.sampling.pixels

    def learner(self) -> Learner:
        """A segmenter with its first weights, or with those to start from.

        Raises:
            ConfigError: weights to start from that cannot be read, or are of another network than ``config.model``.
        """
        network = Segmenter(self.config.model.spec())
        supervised = Supervised(network, deep=self.config.loss.deep > 0)
        if self.config.start is not None:
            network.load_state_dict(_fitting(load_start(self.config.start), self.config).state_dict())
        return supervised

    def batch(self, step: int) -> Batch:
        drawn = self._sampler.batch(step)
        lines = [centre_lines(drawn.target)] if self.config.loss.skeleton else []
        return drawn.image, drawn.target, *lines

    def loss(self, learner: Learner, outputs: list[Tensor], *targets: Tensor) -> Tensor:  # noqa: ARG002
        target, *lines = targets
        return total_loss(
            outputs, target, self.config.loss, margin=self.config.sampling.margin, lines=lines[0] if lines else None
        )


def train(
    config: TrainConfig,
    volumes: tuple[LabelledVolume, ...],
    folder: Path,
    *,
    device: torch.device,
    checkpoint_every: int = 500,
    report: Callable[[StepReport], None] = lambda _: None,
    stop_after: int | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> TrainState:
    """Train a segmenter on volumes as ``training_volumes`` gives them; all else as ``learn``."""
    return learn(
        Segmentation(config, volumes),
        folder,
        device=device,
        checkpoint_every=checkpoint_every,
        report=report,
        stop_after=stop_after,
        stop=stop,
    )


def load_start(start: str) -> Segmenter:
    """The network of a bundled model's name, of a model's or a finished run's folder, or of a ``.safetensors`` file.

    Raises:
        ConfigError: what cannot be read.
    """
    path = Path(start)
    try:
        if path.suffix != ".safetensors":
            finished = path / WEIGHTS
            path = finished if finished.exists() else load_model(start).path.with_name(WEIGHTS)
        elif not path.exists() and (_PACKAGE / path).exists():
            path = _PACKAGE / path
        return load_segmenter(path)
    except (ModelError, WeightsError, OSError) as error:
        raise ConfigError(
            f"start is {start!r}: {error}; give a bundled model's name, or the path of a model folder or of a "
            ".safetensors file that training wrote"
        ) from error


def _fitting(network: Segmenter, config: TrainConfig) -> Segmenter:
    if network.spec != config.model.spec():
        raise ConfigError(
            f"start is {config.start!r}, whose network is {network.spec}; it must be the one of [model], "
            f"{config.model.spec()}: take over its widths and symmetry, or leave start out"
        )
    return network
