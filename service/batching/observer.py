"""Who is told what the device does; the metrics, in a service."""

from __future__ import annotations

from typing import Protocol


class Observer(Protocol):
    """Told about tiles, from the device's thread; must return at once."""

    def waited(self, seconds: float, *, job: bool) -> None:
        """One tile went from the queue into the network."""
        ...

    def ran(self, model: str, *, tiles: int, voxels: int, seconds: float, job: bool) -> None:
        """A batch was computed; ``voxels`` are the network's, halos and padding included."""
        ...


class NoObserver:
    """Looks away."""

    def waited(self, seconds: float, *, job: bool) -> None:
        """Nothing."""

    def ran(self, model: str, *, tiles: int, voxels: int, seconds: float, job: bool) -> None:
        """Nothing."""
