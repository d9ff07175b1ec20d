"""``emboundary-train compare``."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from emboundary.service.engine import Device, OnnxEngine, find_model
from emboundary.training.commands.shared import console, write_text
from emboundary.training.compare import Contestant, as_markdown, as_records
from emboundary.training.compare import compare as run_comparison
from emboundary.training.config import load_config
from emboundary.training.data import load_volume
from emboundary.training.figures import maps, score_curves
from emboundary.training.storing import storing

# The un-augmented baseline is no model to use, so it is kept beside the comparison and not in the zoo.
BASELINES = Path(__file__).parents[1] / "baselines"


def compare(data: Path, config: Path, out: Path, *, sections: tuple[int, int], rounds: int, device: Device) -> None:
    """Run the comparison and write ``table.md``, ``table.json``, ``curves.png`` and ``maps.png``."""
    volume = load_volume(data, load_config(config).data[0], sections)
    plain, bare, paper, d4 = (
        OnnxEngine.open(find_model(name), device) for name in ("plain", BASELINES / "plain-noaug", "paper", "d4")
    )
    contestants = (
        Contestant("plain", plain),
        Contestant("plain, trained without augmentation", bare),
        Contestant("plain + 8x augmentation, mean", plain, "mean"),
        Contestant("plain + 8x augmentation, majority vote", plain, "vote"),
        Contestant("paper", paper),
        Contestant("d4", d4),
    )
    result = run_comparison(contestants, volume, rounds=rounds, report=console.print)
    table = as_markdown(result.rows)
    record = {
        "volume": volume.name,
        "sections": list(sections),
        "rounds": rounds,
        "device": d4.device,
        "models": {e.description.name: e.description.sha256 for e in (plain, bare, paper, d4)},
        "rows": as_records(result.rows),
    }
    write_text(out / "table.md", table)
    write_text(out / "table.json", json.dumps(record, indent=2) + "\n")
    with storing(out / "curves.png") as partial:
        score_curves(partial, result, title=f"{volume.name}, sections {sections[0]}:{sections[1]}")
    with storing(out / "maps.png") as partial:
        maps(partial, result, volume)
    typer.echo(table, nl=False)
