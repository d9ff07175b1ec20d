"""What ``predict`` and ``client predict`` share: how a map is made, and what is said when parts of it are missing."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from emboundary.service.errors import InputError
from emboundary.service.progress import Reporter
from emboundary.service.run.prediction import MapReport, make_map
from emboundary.service.run.predictor import Predictor
from emboundary.service.run.request import MapRequest

_SHOWN = 20


def run_request(request: MapRequest, predictor: Predictor, reporter: Reporter) -> MapReport:
    """Map a volume; SIGTERM ends it as Ctrl-C does, with what is stored kept."""
    with _terminated_as_interrupted():
        report = make_map(request, predictor, reporter)
    for block in report.missing[:_SHOWN]:
        reporter.warn(f"block {block.box} of the map is missing: {block.reason}")
    if len(report.missing) > _SHOWN:
        reporter.warn(f"{len(report.missing) - _SHOWN} more blocks are missing; --json lists them all")
    return report


def refuse_incomplete(report: MapReport, target: Path) -> None:
    """End with exit code 1 where blocks are missing and were not filled.

    Raises:
        InputError: says how many, and what can be done.
    """
    if report.complete:
        return
    first = report.missing[0]
    again = "the same command then makes only these" if report.blocks_done + report.blocks_skipped else "try again"
    raise InputError(
        f"{len(report.missing)} blocks of {target} are missing because INPUT cannot be read there (block {first.box}: "
        f"{first.reason}); mend INPUT and {again}, or add --fill-missing 0 to do without them"
    )


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Inside, SIGTERM raises KeyboardInterrupt; signals can be handled in the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
