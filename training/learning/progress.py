"""How a training run shows itself: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from emboundary.training.learning.loop import StepReport

_LINE_EVERY = 100


@contextmanager
def training_progress(label: str, console: Console) -> Iterator[Callable[[StepReport], None]]:
    """Yield a function to be called after every step."""
    if not console.is_terminal:
        yield lambda report: _line(label, report, console)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.4f}"),
        TextColumn("{task.fields[speed]:.2f} steps/s"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(label, total=None, loss=float("nan"), speed=0.0)

        def show(report: StepReport) -> None:
            progress.update(
                task, total=report.steps, completed=report.step, loss=report.recent_loss, speed=report.steps_per_second
            )

        yield show


def _line(label: str, report: StepReport, console: Console) -> None:
    if report.step % _LINE_EVERY == 0 or report.step == report.steps:
        console.print(
            f"{label}: step {report.step} of {report.steps}, loss {report.recent_loss:.4f}, "
            f"{report.steps_per_second:.2f} steps/s",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
