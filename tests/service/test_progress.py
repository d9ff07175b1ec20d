from __future__ import annotations

import io
import re
import time
from collections.abc import Iterator

from rich.console import Console

from emboundary.service.progress import LineReporter, TerminalReporter, create_reporter


def console(*, terminal: bool) -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    return Console(file=text, force_terminal=terminal, width=120, color_system=None), text


def test_the_kind_follows_the_console() -> None:
    assert isinstance(create_reporter(console(terminal=True)[0]), TerminalReporter)
    assert isinstance(create_reporter(console(terminal=False)[0]), LineReporter)


def ticks(step: float) -> Iterator[float]:
    now = 0.0
    while True:
        yield now
        now += step


def test_lines_come_every_ten_seconds_and_at_the_end() -> None:
    target, text = console(terminal=False)
    clock = ticks(4.0)
    with LineReporter(target, lambda: next(clock)).bar("predicting", 8_000_000) as advance:
        for _ in range(8):
            advance(1_000_000)
    assert text.getvalue().splitlines() == [
        "predicting: 38% of 8 Mvoxel, 250 kvoxel/s, 0:00:20 left",
        "predicting: 75% of 8 Mvoxel, 250 kvoxel/s, 0:00:08 left",
        "predicting: 8 Mvoxel in 36.0 s, 222 kvoxel/s",
    ]


def test_a_terminal_gets_a_bar_with_speed_and_time_left() -> None:
    target, text = console(terminal=True)
    with TerminalReporter(target).bar("predicting", 4_000_000) as advance:
        advance(1_000_000)
        deadline = time.monotonic() + 30
        while "25%" not in text.getvalue() and time.monotonic() < deadline:
            time.sleep(0.01)  # the bar is drawn by a thread of its own
        advance(3_000_000)
    shown = text.getvalue()
    assert re.search(r"predicting .* 25% [\d.]+ [kMGT]?voxel/s, \d:\d\d:\d\d left", shown)
    assert re.search(r"predicting .*100% [\d.]+ [kMGT]?voxel/s", shown)


def test_lines_are_shown_as_they_are() -> None:
    for terminal in (True, False):
        target, text = console(terminal=terminal)
        line = "a path with [brackets] and more than a line can hold " * 4
        create_reporter(target).say(line)
        assert text.getvalue() == line + "\n"
