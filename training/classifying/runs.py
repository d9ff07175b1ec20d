"""A classifier's run: what a training leaves in its folder, and how it is taken up again.

``config.json``
    the complete configuration
``checkpoint.pt``
    everything that resuming needs
``scores.json``
    training and test scores along the way, once the run is complete
``weights.safetensors``
    the averaged network, unexpanded
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
from safetensors.torch import save
from torch import nn

from emboundary.training.classifying.config import ClassifierConfig, load_classifier_config
from emboundary.training.classifying.scoring import score_images
from emboundary.training.classifying.task import Classification
from emboundary.training.images.sets import ImageSet
from emboundary.training.learning.loop import StepReport, learn
from emboundary.training.learning.runs import CONFIG, WEIGHTS, RunError
from emboundary.training.learning.state import TrainState
from emboundary.training.storing import store_text, storing

SCORES = "scores.json"


@dataclass(frozen=True)
class ClassifierRun:
    """A finished run.

    Attributes:
        network: the averaged network, in evaluation mode, on the CPU.
        scores: in the order of their steps: ``step``, ``seconds`` of training and scoring until then, ``train_error``
            and ``test_error`` in percent, ``train_loss`` and ``test_loss`` in nats.
        final_loss: mean of the last 200 steps, augmented images and all.
    """

    network: nn.Module
    scores: list[dict[str, float]]
    final_loss: float


def fit_classifier(
    config: ClassifierConfig,
    images: ImageSet,
    folder: Path,
    *,
    device: torch.device,
    report: Callable[[StepReport], None] = lambda _: None,
) -> ClassifierRun:
    """Train in a folder, or take up the run that was interrupted there, and write all that it leaves.

    Raises:
        RunError: the folder holds a run of another configuration.
        OutputError: the folder cannot be written.
        CheckpointError, DivergenceError: see ``learn``.
    """
    stored = folder / CONFIG
    if stored.exists() and load_classifier_config(stored) != config:
        raise RunError(f"{folder} holds a run of another configuration; give another --runs")
    store_text(stored, config.model_dump_json(indent=2) + "\n")
    task = Classification(config, images)
    state = learn(task, folder, device=device, report=report, watch=_Watch(config, images))
    with storing(folder / WEIGHTS) as partial:
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in state.average.state_dict().items()}
        partial.write_bytes(save(weights))
    store_text(folder / SCORES, json.dumps(state.notes, indent=2) + "\n")
    return ClassifierRun(state.average.cpu(), state.notes, fmean(state.losses[-200:]))


class _Watch:
    """Scores the averaged network when its step has come, and notes it in the state."""

    def __init__(self, config: ClassifierConfig, images: ImageSet) -> None:
        steps, times = config.optimiser.steps, config.evaluations
        self._due = {round(steps * (k + 1) / times) for k in range(times)}
        self._images, self._count = images, config.scored_training
        self._started = time.perf_counter()

    def __call__(self, state: TrainState) -> None:
        if state.step not in self._due:
            return
        network = state.average.eval()
        images, count = self._images, self._count
        train = score_images(network, images, images.train_images[:count], images.train_labels[:count])
        test = score_images(network, images, images.test_images, images.test_labels)
        state.notes.append(
            {
                "step": state.step,
                "seconds": round(self._lap(state), 1),
                "train_error": train.error,
                "test_error": test.error,
                "train_loss": train.loss,
                "test_loss": test.loss,
            }
        )

    def _lap(self, state: TrainState) -> float:
        now = time.perf_counter()
        lap, self._started = now - self._started, now
        return lap + (state.notes[-1]["seconds"] if state.notes else 0.0)
