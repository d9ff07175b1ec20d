import io

import pytest
from rich.console import Console

from emboundary.training.learning.loop import StepReport
from emboundary.training.learning.progress import training_progress


def show(console: Console, steps: int) -> None:
    with training_progress("d4 [beside]", console) as report:
        for step in range(1, steps + 1):
            report(StepReport(step, steps, 0.5, 2.0, 3.5e4))


def test_lines_come_every_hundred_steps_and_at_the_end() -> None:
    text = io.StringIO()
    show(Console(file=text, width=40), 250)
    assert text.getvalue().splitlines() == [
        f"d4 [beside]: step {step} of 250, loss 0.5000, 2.00 steps/s" for step in (100, 200, 250)
    ]


def test_a_terminal_shows_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    text = io.StringIO()
    show(Console(file=text, width=100, force_terminal=True), 7)
    for part in ("d4 [beside]", "7/7", "loss 0.5000", "2.00 steps/s"):
        assert part in text.getvalue()
