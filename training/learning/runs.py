"""A run's folder: what a training leaves behind, and how it is taken up again.

``config.json``
    the complete configuration
``checkpoint.pt``
    everything that resuming needs
``loss.csv``, ``loss.png``
    the loss of every step
``weights.safetensors``
    the averaged network, unexpanded, once the run is complete
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch

from emboundary.model.inception import Segmenter
from emboundary.model.weights import WeightsError, load_segmenter, save_segmenter
from emboundary.service.errors import EmboundaryError
from emboundary.training.config import TrainConfig, load_config
from emboundary.training.crops.data import training_volumes
from emboundary.training.figures import loss_curve
from emboundary.training.learning.loop import StepReport
from emboundary.training.learning.state import TrainState
from emboundary.training.learning.train import train
from emboundary.training.storing import store_text, storing

CONFIG, LOSSES, LOSS_CURVE, WEIGHTS = "config.json", "loss.csv", "loss.png", "weights.safetensors"


class RunError(EmboundaryError):
    """A folder that holds another run, an unfinished one, or none."""


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        network: the averaged network, in evaluation mode, on the CPU.
        final_loss: mean of the last 200 steps.
    """

    folder: Path
    config: TrainConfig
    network: Segmenter
    final_loss: float


def fit(
    config: TrainConfig,
    data: Path,
    folder: Path,
    *,
    device: torch.device,
    checkpoint_every: int = 500,
    report: Callable[[StepReport], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> Run:
    """Train in a folder, or take up the run that was interrupted there, and write all that it leaves.

    Raises:
        RunError: the folder holds a run of another configuration.
        DataError: training data that is missing or does not fit.
        OutputError: the folder cannot be written.
        CheckpointError, DivergenceError, Stopped: see ``learn``.
    """
    stored = folder / CONFIG
    if stored.exists() and load_config(stored) != config:
        raise RunError(f"{folder} holds a run of another configuration; give another --out")
    volumes = training_volumes(data, config)
    store_text(stored, config.model_dump_json(indent=2) + "\n")
    state = train(config, volumes, folder, device=device, checkpoint_every=checkpoint_every, report=report, stop=stop)
    with storing(folder / LOSSES) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["step", "loss"])
        rows.writerows(enumerate(state.losses, start=1))
    with storing(folder / LOSS_CURVE) as partial:
        loss_curve(partial, state.losses, title=config.name)
    with storing(folder / WEIGHTS) as partial:
        save_segmenter(_segmenter(state), partial)
    return load_run(folder)


def _segmenter(state: TrainState) -> Segmenter:
    assert isinstance(state.average, Segmenter)
    return state.average


def load_run(folder: Path) -> Run:
    """Read a finished run.

    Raises:
        RunError: no run, one that is not complete, or damaged files.
        ConfigError: a configuration that breaks a rule.
    """
    if not (folder / CONFIG).exists():
        raise RunError(f"{folder} holds no {CONFIG}; give the --out folder of `emboundary-train fit`")
    config = load_config(folder / CONFIG)
    if not (folder / WEIGHTS).exists():
        raise RunError(f"{folder} holds no {WEIGHTS}: the run is not complete; run fit again to resume it")
    try:
        network = load_segmenter(folder / WEIGHTS).eval()
        with (folder / LOSSES).open(encoding="utf-8") as file:
            losses = [float(row["loss"]) for row in csv.DictReader(file)]
        return Run(folder, config, network, fmean(losses[-200:]))
    except (WeightsError, OSError, KeyError, ValueError) as error:
        raise RunError(f"{folder} is damaged: {error}; run fit again to write its files anew") from error
