"""A run's folder: what a training leaves behind, and how it is taken up again.

config.json             the complete configuration
checkpoint.pt           everything that resuming needs
loss.csv, loss.png      the loss of every step
weights.safetensors     the averaged network, unexpanded, once the run is complete
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch

from emboundary.model.inception import Segmenter
from emboundary.model.weights import load_segmenter, save_segmenter
from emboundary.training.config import ConfigError, TrainConfig, parse_config_json
from emboundary.training.data import load_volume
from emboundary.training.figures import loss_curve
from emboundary.training.train import StepReport, train

CONFIG, WEIGHTS, LOSSES = "config.json", "weights.safetensors", "loss.csv"


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        network: the averaged network, in evaluation mode.
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
    report: Callable[[StepReport], None],
) -> Run:
    """Train in a folder, or take up the run that was interrupted there, and write all that it leaves.

    Raises:
        ConfigError: the folder holds a run of another configuration.
        DataError: training data that is missing or does not fit.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stored = folder / CONFIG
    text = config.model_dump_json(indent=2) + "\n"
    if stored.exists() and stored.read_text(encoding="utf-8") != text:
        raise ConfigError(f"{folder} holds a run of another configuration; give another --out")
    stored.write_text(text, encoding="utf-8")
    volumes = tuple(load_volume(data, volume) for volume in config.data)
    state = train(config, volumes, folder, device=device, report=report)
    with (folder / LOSSES).open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["step", "loss"])
        rows.writerows(enumerate(state.losses, start=1))
    loss_curve(folder / "loss.png", state.losses, title=config.name)
    save_segmenter(state.average, folder / WEIGHTS)
    return Run(folder, config, state.average, fmean(state.losses[-200:]))


def load_run(folder: Path) -> Run:
    """Read a finished run.

    Raises:
        ConfigError: no configuration, or no weights because the run is not complete.
    """
    try:
        config = parse_config_json((folder / CONFIG).read_text(encoding="utf-8"), origin=str(folder / CONFIG))
    except OSError as error:
        raise ConfigError(f"{folder} holds no {CONFIG}; give the --out folder of `emboundary-train fit`") from error
    if not (folder / WEIGHTS).exists():
        raise ConfigError(f"{folder} holds no {WEIGHTS}: the run is not complete; run fit again to resume it")
    with (folder / LOSSES).open(encoding="utf-8") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    return Run(folder, config, load_segmenter(folder / WEIGHTS).eval(), fmean(losses[-200:]))
