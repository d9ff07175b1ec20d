"""Bring a study's runs to their end: train what is missing, score what is not scored, several runs at a time.

On CPUs, processes with one thread each get more done than one process with all threads.  Each keeps to cores of its
own, or ONNX Runtime would start a thread for every core in all of them.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing.queues import Queue
from pathlib import Path

import torch
from rich.console import Console

from emboundary.service.engine import Device
from emboundary.training.comparing.scoring import score_run
from emboundary.training.config import load_config
from emboundary.training.learning.progress import training_progress
from emboundary.training.learning.runs import CONFIG, WEIGHTS, RunError, fit
from emboundary.training.study import StudyRun

Cores = frozenset[int]


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
        RunError, DataError, CheckpointError, DivergenceError, OutputError: the first failure; runs that have not
            begun by then are left.
    """
    if jobs < 1:
        raise ValueError(f"jobs is {jobs}; at least one process is needed")
    if jobs == 1:
        for task in tasks:
            work(task, console)
        return
    spawning = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    places: Queue[Cores] = spawning.Queue()
    for cores in shared_cores(os.sched_getaffinity(0), jobs):
        places.put(cores)
    with ProcessPoolExecutor(jobs, spawning, _settle, (places, threads)) as pool:
        running = [pool.submit(_work_apart, task) for task in tasks]
        try:
            for done in as_completed(running):
                done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def shared_cores(cores: set[int], jobs: int) -> list[Cores]:
    """Disjoint sets of cores, one for each process; all cores for each, where there are fewer cores than processes."""
    share = len(cores) // jobs
    if not share:
        return [Cores(cores)] * jobs
    ordered = sorted(cores)
    return [Cores(ordered[i * share : (i + 1) * share]) for i in range(jobs)]


def work(task: Task, console: Console) -> None:
    """Train a run if it is not finished, and score it."""
    if not is_finished(task.run, task.folder):
        with training_progress(str(task.run.folder), console) as report:
            fit(task.run.config, task.data, task.folder, device=torch.device(task.trains_on), report=report)
    score_run(task.run, task.folder, task.data, device=task.device, keep=task.keep, report=console.print)


def _settle(places: Queue[Cores], threads: int | None) -> None:
    cores = places.get()
    os.sched_setaffinity(0, cores)
    torch.set_num_threads(threads or len(cores))


def _work_apart(task: Task) -> None:
    # Lines, not bars: those of several processes would overwrite each other.
    work(task, Console(stderr=True, force_terminal=False, highlight=False, markup=False, soft_wrap=True))
