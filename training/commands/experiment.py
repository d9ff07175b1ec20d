"""``emboundary-train experiment``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from emboundary.service.engine import Device
from emboundary.training.classifying.config import ClassifierConfig
from emboundary.training.commands.shared import console, torch_device
from emboundary.training.comparing.records import environment
from emboundary.training.experimenting.classifying import run_classifier
from emboundary.training.experimenting.outcome import Outcome
from emboundary.training.experimenting.page import experiment_page
from emboundary.training.experimenting.pictures import draw
from emboundary.training.experimenting.plan import Experiment, Variant, find_experiment, load_experiment
from emboundary.training.experimenting.segmenting import run_segmenter
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
    threads: int | None,
) -> None:
    """Train every variant that is not finished, score all, and write ``NAME.md``, ``NAME.json`` and pictures."""
    path = find_experiment(name)
    loaded = load_experiment(path, budget, only)
    where = torch_device(device, threads)
    folder = runs / loaded.name / budget if budget else runs / loaded.name
    outcomes = [_run(v, loaded, data, folder / v.folder, where) for v in loaded.variants]
    store_text(out / f"{loaded.name}.json", json.dumps(_record(loaded, outcomes, where), indent=2) + "\n")
    pictures = draw(loaded, outcomes, out)
    store_text(out / f"{loaded.name}.md", experiment_page(loaded, outcomes, pictures))


def _run(variant: Variant, loaded: Experiment, data: Path, folder: Path, device: torch.device) -> Outcome:
    if isinstance(variant.config, ClassifierConfig):
        return run_classifier(variant, data, folder, device=device, console=console)
    return run_segmenter(variant, data, folder, eight=loaded.eight, device=device, console=console)


def _record(loaded: Experiment, outcomes: Sequence[Outcome], device: torch.device) -> dict[str, Any]:
    return {
        "question": loaded.question,
        "budget": loaded.budget,
        "environment": environment(device.type).model_dump(mode="json"),
        "scored": {volume.name: list(sections) for volume, sections in loaded.variants[0].scored},
        "outcomes": [asdict(o) for o in outcomes],
        "configs": {v.folder: v.config.model_dump(mode="json") for v in loaded.variants},
    }
