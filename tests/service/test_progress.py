from __future__ import annotations

import io
import json
import re
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from rich.console import Console

from emboundary.service.pace import Shares
from emboundary.service.progress import (
    JsonReporter,
    LineReporter,
    QuietReporter,
    Style,
    TerminalReporter,
    create_reporter,
)


class Waiting:
    """A run that waits for the network, mostly."""

    def shares(self) -> Shares:
        return Shares(0.03, 0.95, 0.02)


def console(*, terminal: bool, width: int = 140) -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    return Console(file=text, force_terminal=terminal, width=width, color_system=None, _environ={}), text


def test_the_kind_follows_the_console() -> None:
    assert isinstance(create_reporter(console(terminal=True)[0]), TerminalReporter)
    assert isinstance(create_reporter(console(terminal=False)[0]), LineReporter)


def test_a_terminal_that_cannot_move_its_cursor_gets_lines() -> None:
    dumb = Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": "dumb"})
    assert isinstance(create_reporter(dumb), LineReporter)


@pytest.mark.parametrize(
    ("style", "kind"),
    [("bar", TerminalReporter), ("lines", LineReporter), ("json", JsonReporter), ("none", QuietReporter)],
)
@pytest.mark.parametrize("terminal", [False, True])
def test_or_a_style_that_is_asked_for(style: Style, kind: type, terminal: bool) -> None:
    assert isinstance(create_reporter(console(terminal=terminal)[0], style), kind)


def test_a_bar_that_is_asked_for_is_drawn_into_a_file_too() -> None:
    target, text = console(terminal=False)
    with create_reporter(target, "bar").bar("predicting", 100) as advance:
        advance(100)
    assert "predicting" in text.getvalue()
    assert "\x1b[" in text.getvalue()


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


def test_lines_tell_what_the_run_waits_for() -> None:
    target, text = console(terminal=False)
    clock = ticks(10.0)
    with LineReporter(target, lambda: next(clock)).bar("predicting", 4_000, Waiting()) as advance:
        advance(1_000)
    assert text.getvalue().splitlines() == [
        "predicting: 25% of 4 kvoxel, 100 voxel/s, 0:00:30 left, input 3 % compute 95 % output 2 %",
        "predicting: 1 kvoxel in 20.0 s, 50 voxel/s, input 3 % compute 95 % output 2 %",
    ]


def test_what_an_earlier_run_did_counts_as_done_but_not_towards_the_pace() -> None:
    target, text = console(terminal=False)
    clock = ticks(10.0)
    with LineReporter(target, lambda: next(clock)).bar("predicting", 10_000, done=8_000) as advance:
        advance(1_000)
        advance(1_000)
    assert text.getvalue().splitlines() == [
        "predicting: 90% of 10 kvoxel, 100 voxel/s, 0:00:10 left",
        "predicting: 2 kvoxel in 30.0 s, 66.7 voxel/s, after 8 kvoxel of an earlier run",
    ]


@pytest.mark.parametrize(("voxels", "done"), [(0, 0), (500, 500)])
def test_nothing_left_to_do_is_no_error(voxels: int, done: int) -> None:
    target, text = console(terminal=False)
    for style in ("lines", "json", "bar", "none"):
        with create_reporter(target, style).bar("predicting", voxels, Waiting(), done) as advance:
            advance(0)
    assert "predicting: 0 voxel in 0.0 s" in text.getvalue()
    assert '"voxels_per_second": null, "seconds_left": null' in text.getvalue()


def test_a_task_that_fails_is_not_called_done() -> None:
    target, text = console(terminal=False)
    for style in ("lines", "json"):
        with pytest.raises(ValueError, match="damaged"), create_reporter(target, style).bar("predicting", 100):
            raise ValueError("damaged")
    assert text.getvalue() == ""


def shown(text: io.StringIO, wanted: str) -> str:
    """What stands on a terminal once ``wanted`` is there: the bar is drawn by a thread of its own."""
    deadline = time.monotonic() + 30
    while wanted not in text.getvalue() and time.monotonic() < deadline:
        time.sleep(0.01)
    return text.getvalue()


def test_a_terminal_gets_a_bar_with_speed_time_left_and_waits() -> None:
    target, text = console(terminal=True)
    with TerminalReporter(target).bar("predicting", 4_000_000, Waiting()) as advance:
        advance(1_000_000)
        shown(text, "25%")
        advance(3_000_000)
    waits = r"input 3 % compute 95 % output 2 %"
    assert re.search(rf"predicting ━.* 25% [\d.]+ [kMGT]?voxel/s, \d:\d\d:\d\d left, {waits}", text.getvalue())
    assert re.search(rf"predicting ━.*100% [\d.]+ [kMGT]?voxel/s, {waits}", text.getvalue())


def test_on_a_narrow_terminal_the_figures_stay_and_the_bar_goes() -> None:
    target, text = console(terminal=True, width=80)
    with TerminalReporter(target).bar("predicting", 4_000_000, Waiting()) as advance:
        advance(1_000_000)
        shown(text, "25%")
    assert re.search(r"predicting +25% .*voxel/s, .* left, input 3 % compute 95 % output 2 %", text.getvalue())
    assert "━" not in text.getvalue()


def test_a_bar_begins_where_an_earlier_run_ended() -> None:
    target, text = console(terminal=True)
    with TerminalReporter(target).bar("predicting", 1_000, done=900) as advance:
        assert "voxel/s" not in shown(text, "90%")
        advance(1)
        time.sleep(0.2)
    paces = [float(number) for number in re.findall(r"([\d.]+) voxel/s", text.getvalue())]
    assert paces[-1] < 10  # one voxel in at least 0.2 s, not 901


def test_programs_get_one_json_object_a_line() -> None:
    target, text = console(terminal=False, width=20)
    clock = ticks(2.0)
    reporter = JsonReporter(target, lambda: next(clock))
    reporter.say("a path with [brackets], :smile: and\na line break")
    reporter.warn("the voxel size is unknown")
    with reporter.bar("predicting", 1_000, Waiting(), done=200) as advance:
        advance(400)
        advance(400)
    events = [json.loads(line) for line in text.getvalue().splitlines()]
    waiting = {"input": 0.03, "compute": 0.95, "output": 0.02}
    common = {"task": "predicting", "voxels": 1000, "voxels_before": 200, "waiting": waiting}
    assert events == [
        {"event": "message", "text": "a path with [brackets], :smile: and\na line break"},
        {"event": "warning", "text": "the voxel size is unknown"},
        {
            "event": "progress",
            "voxels_done": 600,
            "seconds": 2.0,
            "voxels_per_second": 200.0,
            "seconds_left": 2.0,
            **common,
        },
        {
            "event": "done",
            "voxels_done": 1000,
            "seconds": 6.0,
            "voxels_per_second": 800 / 6,
            "seconds_left": 0.0,
            **common,
        },
    ]


def test_what_a_program_cannot_know_yet_is_null() -> None:
    target, text = console(terminal=False)
    with JsonReporter(target, lambda: 0.0).bar("measuring", 1_000):
        pass
    event = json.loads(text.getvalue())
    assert (event["voxels_per_second"], event["seconds_left"], event["waiting"]) == (None, None, None)


def test_silence_lets_warnings_through() -> None:
    target, text = console(terminal=False)
    reporter = create_reporter(target, "none")
    reporter.say("model d4")
    with reporter.bar("predicting", 10) as advance:
        advance(10)
    reporter.warn("3 blocks are missing")
    assert text.getvalue() == "warning: 3 blocks are missing\n"


def test_threads_may_advance_together() -> None:
    target, text = console(terminal=False)

    def work(advance: Callable[[int], None]) -> None:
        for _ in range(20_000):
            advance(1)

    with LineReporter(target).bar("predicting", 80_000) as advance:
        threads = [threading.Thread(target=work, args=(advance,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert text.getvalue().startswith("predicting: 80 kvoxel in ")


@pytest.mark.parametrize("terminal", [False, True])
def test_lines_are_shown_as_they_are(terminal: bool) -> None:
    target, text = console(terminal=terminal)
    line = "a path with [brackets], a :smile: and more than a line can hold " * 4
    create_reporter(target).say(line)
    create_reporter(target).warn(line)
    assert text.getvalue() == f"{line}\nwarning: {line}\n"
