"""``emboundary-train compare``."""

from __future__ import annotations

from pathlib import Path

import typer

from emboundary.service.engine import Device
from emboundary.training.commands.shared import console, torch_device
from emboundary.training.compare import compare as run_comparison
from emboundary.training.comparing.publishing import publish
from emboundary.training.comparing.verdicts import verdicts
from emboundary.training.study import load_study

STUDY = Path(__file__).parents[1] / "studies" / "small.toml"


def compare(
    data: Path,
    runs: Path,
    out: Path,
    *,
    study: Path | None,
    jobs: int,
    threads: int | None,
    rounds: int,
    device: Device,
    finished_only: bool,
) -> None:
    """Finish, score and time the runs of a study, write its page, and print the verdicts."""
    file = STUDY if study is None else study
    loaded = load_study(file)
    results = run_comparison(
        loaded,
        data,
        runs,
        console,
        name=file.name,
        rounds=rounds,
        device=device,
        trains_on=torch_device(device, threads),
        jobs=jobs,
        threads=threads,
        finished_only=finished_only,
    )
    publish(results, loaded, data, runs, out)
    for verdict in verdicts(results):
        typer.echo(f"{verdict.outcome}: {verdict.claim} ({verdict.measured})")
