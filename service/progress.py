"""How far a run is, on stderr: a bar on a terminal, a line now and then elsewhere, JSON lines for programs."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskProgressColumn, TextColumn
from rich.table import Column
from rich.text import Text

from emboundary.service.pace import Pace, Waits, mega

Advance = Callable[[int], None]
Style = Literal["auto", "bar", "lines", "json", "none"]

_SECONDS_BETWEEN_LINES = 10.0
_SECONDS_BETWEEN_JSON_LINES = 1.0
# Beside the figures there is room for a bar only from this many columns on.
_ROOM_FOR_A_BAR = 100


class Reporter(Protocol):
    """Where a run says what it does."""

    def say(self, line: str) -> None:
        """Show one line."""
        ...

    def warn(self, line: str) -> None:
        """Show one line about something that the user should know before trusting the result."""
        ...

    def bar(self, task: str, voxels: int, waits: Waits | None = None, done: int = 0) -> AbstractContextManager[Advance]:
        """Follow a task; inside, report how many more voxels are done, from any thread.

        Args:
            task: what is done, one word.
            voxels: of the whole task.
            waits: tells what the run waits for; None: not shown.
            done: voxels that an earlier run has done; they count as done, but not towards the pace.
        """
        ...


def create_reporter(console: Console, style: Style = "auto") -> Reporter:
    """The reporter of a style; ``auto`` is a bar where the console is a terminal that can move its cursor, else lines.

    ``bar`` is drawn whatever the console is, ``none`` shows nothing but warnings.
    """
    match style:
        case "auto":
            capable = console.is_terminal and not console.is_dumb_terminal
            return TerminalReporter(console) if capable else LineReporter(console)
        case "bar":
            return TerminalReporter(
                console if console.is_terminal else Console(file=console.file, force_terminal=True, width=console.width)
            )
        case "lines":
            return LineReporter(console)
        case "json":
            return JsonReporter(console)
        case "none":
            return QuietReporter(console)


class TerminalReporter:
    """A bar with voxels per second, the time left, and what the run waits for."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def say(self, line: str) -> None:
        """Show one line above the bar."""
        _print(self._console, line)

    def warn(self, line: str) -> None:
        """Show one line above the bar, marked."""
        _print(self._console, f"warning: {line}", "yellow")

    @contextmanager
    def bar(self, task: str, voxels: int, waits: Waits | None = None, done: int = 0) -> Iterator[Advance]:
        """Follow a task; see `Reporter`."""
        columns: list[ProgressColumn] = [TextColumn("{task.description}"), TaskProgressColumn(), _FiguresColumn()]
        if self._console.width >= _ROOM_FOR_A_BAR:
            columns.insert(1, BarColumn(bar_width=None))
        with Progress(*columns, console=self._console) as progress:
            number = progress.add_task(task, total=voxels, completed=done, before=done, waits=waits)
            yield lambda more: progress.advance(number, more)


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

    def warn(self, line: str) -> None:
        """Show one line, marked."""
        _print(self._console, f"warning: {line}")

    @contextmanager
    def bar(self, task: str, voxels: int, waits: Waits | None = None, done: int = 0) -> Iterator[Advance]:
        """Follow a task; see `Reporter`."""

        def show(pace: Pace) -> None:
            self.say(f"{task}: {pace.fraction:.0%} of {mega(voxels)}voxel, {pace}{_waiting(waits)}")

        counter = _Counter(voxels, done, self._clock, _SECONDS_BETWEEN_LINES, show)
        yield counter.advance
        end = counter.pace()
        figures = f", {mega(end.voxels_per_second)}voxel/s" if end.voxels_per_second else ""
        earlier = f", after {mega(done)}voxel of an earlier run" if done else ""
        self.say(f"{task}: {mega(end.done)}voxel in {end.seconds:.1f} s{figures}{_waiting(waits)}{earlier}")


class JsonReporter:
    """One JSON object a line, for programs; progress once a second.

    Each has an ``event``: ``message`` and ``warning`` with their ``text``; ``progress``, and ``done`` at the end of a
    task, with ``task, voxels, voxels_done, voxels_before, seconds, voxels_per_second, seconds_left`` and ``waiting``:
    the fractions of time spent waiting for ``input``, ``compute`` and ``output``.  What is not known yet is null.

    Attributes:
        clock: seconds from any origin; replaced in tests.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock

    def say(self, line: str) -> None:
        """Write an event ``message``."""
        self._write(event="message", text=line)

    def warn(self, line: str) -> None:
        """Write an event ``warning``."""
        self._write(event="warning", text=line)

    @contextmanager
    def bar(self, task: str, voxels: int, waits: Waits | None = None, done: int = 0) -> Iterator[Advance]:
        """Follow a task; see `Reporter`."""

        def show(pace: Pace, event: str = "progress") -> None:
            shares = None if waits is None else waits.shares()
            self._write(
                event=event,
                task=task,
                voxels=voxels,
                voxels_done=done + pace.done,
                voxels_before=done,
                seconds=round(pace.seconds, 3),
                voxels_per_second=pace.voxels_per_second,
                seconds_left=pace.seconds_left,
                waiting=shares and {"input": shares.input, "compute": shares.compute, "output": shares.output},
            )

        counter = _Counter(voxels, done, self._clock, _SECONDS_BETWEEN_JSON_LINES, show)
        yield counter.advance
        show(counter.pace(), "done")

    def _write(self, **event: Any) -> None:
        _print(self._console, json.dumps(event))


class QuietReporter:
    """Nothing but warnings."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def say(self, line: str) -> None:
        """Show nothing."""

    def warn(self, line: str) -> None:
        """Show one line, marked."""
        _print(self._console, f"warning: {line}")

    @contextmanager
    def bar(self, task: str, voxels: int, waits: Waits | None = None, done: int = 0) -> Iterator[Advance]:  # noqa: ARG002
        """Show nothing."""
        yield lambda _: None


class _Counter:
    """Counts voxels from any thread, and shows the pace when some time has passed since it last did."""

    def __init__(
        self, voxels: int, before: int, clock: Callable[[], float], interval: float, show: Callable[[Pace], None]
    ) -> None:
        self._voxels, self._before, self._done = voxels, before, 0
        self._clock, self._interval, self._show = clock, interval, show
        self._began = self._shown = clock()
        self._lock = threading.Lock()

    def advance(self, more: int) -> None:
        with self._lock:
            self._done += more
            pace = self.pace()
            if pace.fraction < 1 and self._began + pace.seconds - self._shown >= self._interval:
                self._shown = self._began + pace.seconds
                self._show(pace)

    def pace(self) -> Pace:
        return Pace(self._voxels, self._before, self._done, self._clock() - self._began)


class _FiguresColumn(ProgressColumn):
    """The pace of this run, the time left, and what the run waits for."""

    def __init__(self) -> None:
        super().__init__(table_column=Column(no_wrap=True))

    def render(self, task: Task) -> Text:
        before = task.fields["before"]
        pace = Pace(round(task.total or 0), before, round(task.completed) - before, task.elapsed or 0)
        return Text(f"{pace}{_waiting(task.fields['waits']) if pace.done else ''}")


def _waiting(waits: Waits | None) -> str:
    return "" if waits is None else f", {waits.shares()}"


def _print(console: Console, line: str, style: str | None = None) -> None:
    console.print(line, style=style, markup=False, highlight=False, emoji=False, soft_wrap=True)
