"""Checkpoints that resume to the same bits.

A file is written beside its final name, flushed to the disk and renamed, so that a checkpoint that exists is whole.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from emboundary.model.inception import Segmenter


class CheckpointError(ValueError):
    """A checkpoint that is damaged or belongs to another configuration."""


@dataclass
class TrainState:
    """Everything a run carries from one step to the next; batches depend on (seed, step) alone."""

    network: Segmenter
    average: Segmenter
    optimiser: torch.optim.Optimizer
    step: int
    losses: list[float]


def save_checkpoint(path: Path, state: TrainState, config_json: str) -> None:
    """Write a checkpoint atomically."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        torch.save(
            {
                "config": config_json,
                "network": state.network.state_dict(),
                "average": state.average.state_dict(),
                "optimiser": state.optimiser.state_dict(),
                "step": state.step,
                "losses": state.losses,
            },
            file,
        )
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def load_checkpoint(path: Path, state: TrainState, config_json: str) -> None:
    """Restore a state in place.

    Raises:
        CheckpointError: the file cannot be read, or was written under another configuration.
    """
    try:
        stored: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # torch raises half a dozen unrelated types for a damaged file
        raise CheckpointError(f"{path} cannot be read as a checkpoint: {error}; delete it to start over") from error
    if stored["config"] != config_json:
        raise CheckpointError(
            f"{path} was written under another configuration; give another output folder, or delete it to start over"
        )
    state.network.load_state_dict(stored["network"])
    state.average.load_state_dict(stored["average"])
    state.optimiser.load_state_dict(stored["optimiser"])
    state.step, state.losses = stored["step"], stored["losses"]
