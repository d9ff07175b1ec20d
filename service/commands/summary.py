"""How a run that made a map ends: one line for people, or one JSON object for scripts."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from emboundary.service.progress import Reporter
from emboundary.service.run.prediction import MapReport


def show_summary(
    report: MapReport, target: Path, *, model: str, device: str, precision: str, reporter: Reporter, as_json: bool
) -> None:
    """Say what a run did: on the reporter, or as the last line of stdout."""
    if not as_json:
        if report.complete:
            reporter.say(f"{target}: {report.voxels} voxels in {report.seconds:.1f} s")
        return
    answer = {
        "voxels": report.voxels,
        "seconds": report.seconds,
        "voxels_per_second": report.voxels_per_second,
        "model": model,
        "device": device,
        "precision": precision,
        "blocks_done": report.blocks_done,
        "blocks_skipped": report.blocks_skipped,
        "blocks_resumed": report.blocks_resumed,
        "blocks_constant": report.blocks_constant,
        "blocks_missing": [{"box": str(block.box), "reason": block.reason} for block in report.missing],
        "complete": report.complete,
        "intensity": [report.intensity.mean, report.intensity.std],
        "output": str(target),
    }
    typer.echo(json.dumps(answer))
