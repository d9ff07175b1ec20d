"""Checkpoints that resume to the same bits."""

from __future__ import annotations

from pathlib import Path

import torch

from emboundary.service.errors import EmboundaryError, first_line
from emboundary.training.state import TrainState
from emboundary.training.storing import storing

_PARTS = ("config", "supervised", "average", "optimiser", "step", "losses")


class CheckpointError(EmboundaryError):
    """A checkpoint that is damaged or belongs to another configuration."""


def save_checkpoint(path: Path, state: TrainState, config_json: str) -> None:
    """Write a checkpoint; an older one of that name is replaced only by a whole one.

    Raises:
        OutputError: it cannot be written.
    """
    # Through a file of our own: given a path, torch reports a full disk as a RuntimeError about its archive.
    with storing(path) as partial, partial.open("wb") as file:
        torch.save(
            {
                "config": config_json,
                "supervised": state.supervised.state_dict(),
                "average": state.average.state_dict(),
                "optimiser": state.optimiser.state_dict(),
                "step": state.step,
                "losses": state.losses,
            },
            file,
        )


def load_checkpoint(path: Path, state: TrainState, config_json: str) -> None:
    """Restore a state in place.

    Raises:
        CheckpointError: the file cannot be read, or was written under another configuration.
    """
    try:
        stored = torch.load(path, weights_only=True, map_location="cpu")
        config, supervised, average, optimiser, step, losses = (stored[part] for part in _PARTS)
    except Exception as error:  # torch raises half a dozen unrelated types for a damaged file
        reason = first_line(error)
        raise CheckpointError(f"{path} cannot be read as a checkpoint: {reason}; delete it to start over") from error
    if config != config_json:
        raise CheckpointError(
            f"{path} was written under another configuration; give another output folder, or delete it to start over"
        )
    state.supervised.load_state_dict(supervised)
    state.average.load_state_dict(average)
    state.optimiser.load_state_dict(optimiser)
    state.step, state.losses = step, losses
