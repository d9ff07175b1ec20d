"""Bring a study's runs to their end: train what is missing, score what is not scored, several runs at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console

from emboundary.service.engine import Device
from emboundary.training.comparing.scoring import score_run
from emboundary.training.config import load_config
from emboundary.training.learning.progress import training_progress
from emboundary.training.learning.runs import CONFIG, WEIGHTS, RunError, fit
from emboundary.training.processes import side_by_side
from emboundary.training.study import StudyRun


@dataclass(frozen=True)
class Task:
    """One run, to be trained if it is not finished, and scored.

    Attributes:
        folder: of the run.
        data: folder of the volumes.
        device: of the mapping.
        trains_on: of the training.
        keep: store the maps, too.
    """

    run: StudyRun
    folder: Path
    data: Path
    device: Device
    trains_on: str
    keep: bool


def is_finished(run: StudyRun, folder: Path) -> bool:
    """Whether a folder holds the weights of this very run.

    Raises:
        RunError: it holds a run of another configuration.
        ConfigError: its configuration cannot be read.
    """
    if not (folder / WEIGHTS).exists():
        return False
    if load_config(folder / CONFIG) != run.config:
        raise RunError(
            f"{folder} holds a run of another configuration than the study's; give another --runs, or remove the folder"
        )
    return True


def complete(tasks: Sequence[Task], console: Console, *, jobs: int, threads: int | None) -> None:
    """Train and score, ``jobs`` runs at a time with ``threads`` threads each; None: the cores, shared evenly.

    Raises:
        ValueError: fewer than one job.
        ProcessError: a process was ended from outside.
        RunError, DataError, CheckpointError, DivergenceError, OutputError: the first failure, which ends all; runs go
            on from their checkpoints when they are begun again.
    """
    side_by_side(work, tasks, console, jobs=jobs, threads=threads)


def work(task: Task, console: Console) -> None:
    """Train a run if it is not finished, and score it."""
    if not is_finished(task.run, task.folder):
        with training_progress(str(task.run.folder), console) as report:
            fit(task.run.config, task.data, task.folder, device=torch.device(task.trains_on), report=report)
    score_run(task.run, task.folder, task.data, device=task.device, keep=task.keep, report=console.print)
