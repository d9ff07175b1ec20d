"""Checkpoints that resume to the same bits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from emboundary.model.inception import Segmenter, SegmenterSpec
from emboundary.service.errors import EmboundaryError, first_line
from emboundary.training.learning.recipe import LearningConfig
from emboundary.training.learning.state import TrainState
from emboundary.training.storing import storing

# The learner stands under the name that checkpoints have always had for it.
_PARTS = ("config", "supervised", "average", "optimiser", "step", "losses")


class CheckpointError(EmboundaryError):
    """A checkpoint that is damaged or belongs to another configuration."""


def save_checkpoint(path: Path, state: TrainState, config: LearningConfig) -> None:
    """Write a checkpoint; an older one of that name is replaced only by a whole one.

    Raises:
        OutputError: it cannot be written.
    """
    # Through a file of our own: given a path, torch reports a full disk as a RuntimeError about its archive.
    with storing(path) as partial, partial.open("wb") as file:
        torch.save(
            {
                "config": config.model_dump_json(),
                "supervised": state.learner.state_dict(),
                "average": state.average.state_dict(),
                "optimiser": state.optimiser.state_dict(),
                "step": state.step,
                "losses": state.losses,
                "notes": state.notes,
            },
            file,
        )


def load_checkpoint(path: Path, state: TrainState, config: LearningConfig) -> None:
    """Restore a state in place.

    Raises:
        CheckpointError: the file cannot be read, or was written under another configuration.
    """
    with _reading(path):
        stored = _stored(path)
        written, learner, average, optimiser, step, losses = (stored[part] for part in _PARTS)
        # What the text says, not the text: a key that has come since, at its default, changes nothing.
        same = type(config).model_validate_json(written) == config
    if not same:
        raise CheckpointError(
            f"{path} was written under another configuration; give another output folder, or delete it to start over"
        )
    state.learner.load_state_dict(learner)
    state.average.load_state_dict(average)
    state.optimiser.load_state_dict(optimiser)
    state.step, state.losses, state.notes = step, losses, stored.get("notes", [])


def steps_done(path: Path) -> int:
    """The step that a checkpoint is of.

    Raises:
        CheckpointError: the file cannot be read.
    """
    with _reading(path):
        return int(_stored(path)["step"])


def branch_off(source: Path, target: Path, config: LearningConfig) -> None:
    """Write a copy of a checkpoint that goes on under another configuration.

    Raises:
        CheckpointError: the source cannot be read.
        OutputError: the target cannot be written.
    """
    with _reading(source):
        stored = _stored(source)
    with storing(target) as partial, partial.open("wb") as file:
        torch.save({**stored, "config": config.model_dump_json()}, file)


def averaged_segmenter(path: Path, spec: SegmenterSpec) -> tuple[Segmenter, int]:
    """The averaged network of a checkpoint and the step that it is of.

    Raises:
        CheckpointError: the file cannot be read, or is of another network than ``spec``.
    """
    network = Segmenter(spec)
    with _reading(path):
        stored = _stored(path)
        network.load_state_dict(stored["average"])
        return network, int(stored["step"])


def _stored(path: Path) -> dict[str, Any]:
    stored: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    return stored


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # torch raises half a dozen unrelated types for a damaged file
        reason = first_line(error)
        raise CheckpointError(f"{path} cannot be read as a checkpoint: {reason}; delete it to start over") from error
