"""How fast a task goes, how long it will take, and what it waits for: the figures, and their words."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol


@dataclass(frozen=True)
class Shares:
    """What a run spent its time waiting for, as fractions of that time; their sum is at most 1.

    Attributes:
        input: voxels to be read and decoded.
        compute: the network.
        output: blocks to be encoded and stored.
    """

    input: float
    compute: float
    output: float

    def __str__(self) -> str:
        return f"input {self.input:.0%} compute {self.compute:.0%} output {self.output:.0%}".replace("%", " %")


class Waits(Protocol):
    """A run that knows what it waited for; asked from any thread, at any time."""

    def shares(self) -> Shares:
        """What the run has waited for until now."""
        ...


@dataclass(frozen=True)
class Pace:
    """Where a task is.

    Attributes:
        voxels: of the whole task.
        before: voxels that an earlier run had done already.
        done: voxels that this run has done.
        seconds: since this run began.
    """

    voxels: int
    before: int
    done: int
    seconds: float

    @property
    def fraction(self) -> float:
        """Of the whole task, whoever did it; 1 for a task of no voxels."""
        return (self.before + self.done) / self.voxels if self.voxels else 1.0

    @property
    def voxels_per_second(self) -> float | None:
        """Of this run alone: what an earlier one left takes no time now.  None before the first block."""
        return self.done / self.seconds if self.done and self.seconds > 0 else None

    @property
    def seconds_left(self) -> float | None:
        """At the mean pace until now: blocks end too seldom for a moving mean.  None before the first block."""
        pace = self.voxels_per_second
        return None if pace is None else max(0, self.voxels - self.before - self.done) / pace

    def __str__(self) -> str:
        pace, left = self.voxels_per_second, self.seconds_left
        if pace is None or left is None:
            return ""
        return f"{mega(pace)}voxel/s" + (f", {timedelta(seconds=round(left))} left" if self.fraction < 1 else "")


def mega(number: float) -> str:
    """A number with the prefix that keeps it readable, ready for its unit: ``1.25 M``."""
    for factor, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= factor:
            return f"{number / factor:.3g} {prefix}"
    return f"{number:.3g} "
