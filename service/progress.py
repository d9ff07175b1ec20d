"""How far a run is, on stderr: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskProgressColumn, TextColumn
from rich.text import Text

Advance = Callable[[int], None]

_SECONDS_BETWEEN_LINES = 10.0


class Reporter(Protocol):
    """Where a run says what it does."""

    def say(self, line: str) -> None:
        """Show one line."""
        ...

    def bar(self, task: str, voxels: int) -> AbstractContextManager[Advance]:
        """Follow a task over a number of voxels; inside, report how many more are done."""
        ...


def create_reporter(console: Console) -> Reporter:
    """A bar where the console is a terminal, else lines."""
    return TerminalReporter(console) if console.is_terminal else LineReporter(console)


class TerminalReporter:
    """A bar with voxels per second and the time left."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def say(self, line: str) -> None:
        """Show one line above the bar."""
        _print(self._console, line)

    @contextmanager
    def bar(self, task: str, voxels: int) -> Iterator[Advance]:
        """Follow a task over a number of voxels."""
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), _PaceColumn())
        with Progress(*columns, console=self._console) as progress:
            number = progress.add_task(task, total=voxels)
            yield lambda done: progress.advance(number, done)


class LineReporter:
    """A line every 10 seconds, and one at the end of each task.

    Attributes:
        clock: seconds from any origin; replaced in tests.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock

    def say(self, line: str) -> None:
        """Show one line."""
        _print(self._console, line)

    @contextmanager
    def bar(self, task: str, voxels: int) -> Iterator[Advance]:
        """Follow a task over a number of voxels."""
        began = shown = self._clock()
        finished = 0

        def advance(done: int) -> None:
            nonlocal finished, shown
            finished += done
            now = self._clock()
            if now - shown >= _SECONDS_BETWEEN_LINES and finished < voxels:
                shown = now
                self.say(
                    f"{task}: {finished / voxels:.0%} of {_mega(voxels)}voxel, {_pace(finished, voxels, now - began)}"
                )

        yield advance
        seconds = self._clock() - began
        self.say(f"{task}: {_mega(finished)}voxel in {seconds:.1f} s, {_pace(finished, finished, seconds)}")


class _PaceColumn(ProgressColumn):
    """Voxels per second since the start, and the time left at that pace: blocks end too seldom for a moving mean."""

    def render(self, task: Task) -> Text:
        return Text(_pace(task.completed, task.total or 0, task.elapsed or 0))


def _pace(done: float, total: float, seconds: float) -> str:
    if not done or not seconds:
        return ""
    left = (total - done) / done * seconds
    return f"{_mega(done / seconds)}voxel/s" + (f", {timedelta(seconds=round(left))} left" if done < total else "")


def _print(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def _mega(number: float) -> str:
    """A number with the prefix that keeps it readable, ready for its unit: ``1.25 M``."""
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= factor:
            return f"{number / factor:.3g} {prefix}"
    return f"{number:.3g} "
