"""``emboundary-train experiment``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from emboundary.service.engine import Device
from emboundary.training.classifying.config import ClassifierConfig
from emboundary.training.commands.shared import console, torch_device
from emboundary.training.comparing.records import environment
from emboundary.training.config import TrainConfig
from emboundary.training.experimenting.classifying import run_classifier
from emboundary.training.experimenting.file import find_experiment
from emboundary.training.experimenting.outcome import Outcome, Times
from emboundary.training.experimenting.page import experiment_page
from emboundary.training.experimenting.pictures import draw
from emboundary.training.experimenting.plan import Experiment, Variant, load_experiment
from emboundary.training.experimenting.segmenting import run_segmenter
from emboundary.training.experimenting.timing import time_segmenters
from emboundary.training.processes import side_by_side
from emboundary.training.storing import store_text


def experiment(
    name: str,
    data: Path,
    runs: Path,
    out: Path,
    *,
    budget: str | None,
    only: Sequence[str],
    device: Device,
    jobs: int,
    threads: int | None,
) -> None:
    """Train every variant that is not finished, score all, and write ``NAME.md``, ``NAME.json`` and pictures."""
    path = find_experiment(name)
    loaded = load_experiment(path, budget, only)
    where = torch_device(device, threads)
    folder = runs / loaded.name / budget if budget else runs / loaded.name
    work = partial(_run, data=data, folder=folder, eight=loaded.eight, device=where)
    outcomes = side_by_side(work, loaded.variants, console, jobs=jobs, threads=threads)
    times = _times(loaded)
    store_text(out / f"{loaded.name}.json", json.dumps(_record(loaded, outcomes, times, where), indent=2) + "\n")
    pictures = draw(loaded, outcomes, times, out)
    store_text(out / f"{loaded.name}.md", experiment_page(loaded, outcomes, times, pictures))


def _run(variant: Variant, console: Console, *, data: Path, folder: Path, eight: bool, device: torch.device) -> Outcome:
    own = folder / variant.folder
    if isinstance(variant.config, ClassifierConfig):
        return run_classifier(variant, data, own, device=device, console=console)
    return run_segmenter(variant, data, own, eight=eight, device=device, console=console)


def _times(loaded: Experiment) -> Times:
    """Of every variant over the first, where the budget asks for it."""
    networks = {v.label: v.config for v in loaded.variants if isinstance(v.config, TrainConfig)}
    return time_segmenters(networks, rounds=loaded.rounds) if networks and loaded.rounds else {}


def _record(loaded: Experiment, outcomes: Sequence[Outcome], times: Times, device: torch.device) -> dict[str, Any]:
    return {
        "question": loaded.question,
        "budget": loaded.budget,
        "environment": environment(device.type).model_dump(mode="json"),
        "scored": {volume.name: list(sections) for volume, sections in loaded.variants[0].scored},
        "outcomes": [asdict(o) for o in outcomes],
        "times": times,
        "configs": {v.folder: v.config.model_dump(mode="json") for v in loaded.variants},
    }
