"""``emboundary-train scoreboard``."""

from __future__ import annotations

from pathlib import Path

from emboundary.service.engine import Device
from emboundary.training.commands.shared import console
from emboundary.training.comparing.records import read_record
from emboundary.training.scoreboard.measuring import begun, fill
from emboundary.training.scoreboard.page import render
from emboundary.training.scoreboard.plan import load_scoreboard
from emboundary.training.scoreboard.records import Board
from emboundary.training.storing import store_text


def scoreboard(file: Path, data: Path, out: Path, *, device: Device) -> None:
    """Measure what is not measured yet, and write ``OUT/NAME.json`` and ``OUT/NAME.md``."""
    plan = load_scoreboard(file)
    records, page = (out / f"{file.stem}.{suffix}" for suffix in ("json", "md"))

    def keep(board: Board) -> None:
        store_text(records, board.model_dump_json(indent=1) + "\n")
        store_text(page, render(board))

    before = begun(plan, file.name, read_record(records, Board))
    keep(fill(plan, data, before, device=device, keep=keep, report=console.print))
    console.print(f"{page}")
