"""``emboundary-train fit``."""

from __future__ import annotations

from pathlib import Path

from emboundary.model.footprint import count_parameters
from emboundary.service.engine import Device
from emboundary.training.commands.shared import console, torch_device
from emboundary.training.config import load_config
from emboundary.training.progress import training_progress
from emboundary.training.runs import fit as fit_run


def fit(config: Path, data: Path, out: Path, *, device: Device, threads: int | None) -> None:
    """Train one configuration; see ``runs.fit`` for what it leaves."""
    parsed = load_config(config)
    where = torch_device(device, threads)
    with training_progress(parsed.name, console) as report:
        run = fit_run(parsed, data, out, device=where, report=report)
    console.print(f"{parsed.name}: {count_parameters(run.network):,} parameters, weights in {out}")
