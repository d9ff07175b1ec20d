"""The comparison of a study, from its runs to its records.

Runs that are not finished are trained, or listed as missing; finished ones are scored; the engines of the first seed
of the first series are timed against each other.  Whatever was measured before, on the same weights, is taken from the
records in the runs' folders.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from emboundary.service.engine import Device
from emboundary.training.comparing.records import (
    PROTOCOL,
    TIMING,
    LossCurve,
    Results,
    RunRecord,
    SeriesRecord,
    Timing,
    read_record,
)
from emboundary.training.comparing.scoring import open_engine, passes_of, score_run, weights_sha256
from emboundary.training.comparing.timing import Contestant, time_contestants
from emboundary.training.comparing.working import Task, complete, is_finished
from emboundary.training.crops.data import load_volume
from emboundary.training.learning.runs import LOSSES
from emboundary.training.storing import store_text
from emboundary.training.study import Study, StudyRun

_LOSS_POINTS = 100


def compare(
    study: Study,
    data: Path,
    runs: Path,
    console: Console,
    *,
    name: str,
    rounds: int,
    device: Device,
    trains_on: torch.device,
    jobs: int = 1,
    threads: int | None = None,
    finished_only: bool = False,
) -> Results:
    """Measure all that is not measured yet, and gather the records of a study.

    Args:
        study: what is compared.
        data: folder of the volumes.
        runs: folder of the study's runs.
        console: told what is being done.
        name: of the study's file.
        rounds: of timing.
        device: that maps.
        trains_on: that trains.
        jobs: processes that train and score.
        threads: of each; None: its share of the cores.
        finished_only: train nothing.

    Raises:
        RunError: a run's folder holds another run.
        DataError: a volume that cannot be read.
        OutputError: a folder that cannot be written.
    """
    chosen = [run for run in study.runs if not finished_only or is_finished(run, runs / run.folder)]
    tasks = [Task(r, runs / r.folder, data, device, str(trains_on), keep=is_leading(study, r)) for r in chosen]
    complete(tasks, console, jobs=jobs, threads=threads)
    return Results(
        question=study.question,
        study=name,
        caveats=study.caveats,
        series=tuple(_series(study, one.key) for one in study.series),
        runs=tuple(_record(run, runs / run.folder, data, device, keep=is_leading(study, run)) for run in chosen),
        missing=tuple(str(run.folder) for run in study.runs if run not in chosen),
        timing=_timing(
            study, chosen, data, runs, rounds=rounds, device=device, trains_on=trains_on, report=console.print
        ),
    )


def joins(study: Study, key: str) -> str | None:
    """The first series that differs from this one in title, models and seeds alone, and has none of its models."""
    mine = next(series for series in study.series if series.key == key)
    for other in study.series:
        if other.key == key:
            return None
        same = (other.train, other.score, other.sections, other.set) == (
            mine.train,
            mine.score,
            mine.sections,
            mine.set,
        )
        if same and not set(other.models) & set(mine.models):
            return other.key
    return None


def is_leading(study: Study, run: StudyRun) -> bool:
    """Whether a run is timed, and its maps are kept: the first seed of the first series and of those that join it."""
    first = study.series[0]
    return run.seed == first.seeds[0] and first.key in (run.series, joins(study, run.series))


def _record(run: StudyRun, folder: Path, data: Path, device: Device, *, keep: bool) -> RunRecord:
    return RunRecord(
        series=run.series,
        model=run.model,
        seed=run.seed,
        scores=score_run(run, folder, data, device=device, keep=keep),  # scored by now: this reads the record
        loss=loss_means(_losses(folder / LOSSES)),
    )


def _losses(path: Path) -> Iterable[float]:
    with path.open(encoding="utf-8") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def loss_means(losses: Iterable[float]) -> LossCurve:
    """Means over stretches of equal length, about a hundred of them, each named by its last step."""
    every = np.array(list(losses))
    length = max(1, every.size // _LOSS_POINTS)
    whole = every[: every.size // length * length].reshape(-1, length)
    steps = np.arange(1, len(whole) + 1) * length
    return LossCurve(
        steps=tuple(int(step) for step in steps), losses=tuple(round(float(mean), 6) for mean in whole.mean(axis=1))
    )


def _series(study: Study, key: str) -> SeriesRecord:
    series = next(series for series in study.series if series.key == key)
    run = study.of(key)[0]
    return SeriesRecord(
        key=key,
        title=series.title,
        models=series.models,
        seeds=series.seeds,
        steps=run.config.optimiser.steps,
        pixels=run.config.optimiser.steps * run.config.sampling.pixels,
        train={volume.name: volume.sections for volume in run.config.data},
        score={volume.name: volume.validation for volume in run.scored if volume.validation is not None},
        limited=series.sections is not None,
        joins=joins(study, key),
    )


def _timing(
    study: Study,
    finished: list[StudyRun],
    data: Path,
    runs: Path,
    *,
    rounds: int,
    device: Device,
    trains_on: torch.device,
    report: Callable[[str], None],
) -> Timing | None:
    """The stored timing, if it is of these weights and as many rounds, or a new one; None without any engine."""
    timed = [run for run in finished if is_leading(study, run)]
    if not timed:
        return None
    wanted = [(run, passes, weights_sha256(runs / run.folder)) for run in timed for passes in passes_of(run.config)]
    stored = read_record(runs / TIMING, Timing)
    if stored is not None and stored.protocol == PROTOCOL:
        known = [(row.model, row.passes, row.weights_sha256) for row in stored.rows]
        same = known == [(run.model, passes, digest) for run, passes, digest in wanted]
        if same and all(len(row.seconds) == rounds for row in stored.rows):
            return stored
    engines = {run.model: open_engine(runs / run.folder, device) for run in timed}
    scored = timed[0].scored[0]
    timing = time_contestants(
        tuple(Contestant(run.model, passes, digest, engines[run.model], run.config) for run, passes, digest in wanted),
        load_volume(data, scored, scored.validation),
        tuple(load_volume(data, volume) for volume in timed[0].config.data),
        rounds=rounds,
        device=trains_on,
        report=report,
    )
    store_text(runs / TIMING, timing.model_dump_json(indent=1) + "\n")
    return timing
