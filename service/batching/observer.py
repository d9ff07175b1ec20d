"""Who is told what the device does; the metrics, in a service."""

from __future__ import annotations

from typing import Protocol


class Observer(Protocol):
    """Told about tiles, from the device's thread; must return at once."""

    def waited(self, seconds: float, *, job: bool) -> None:
        """One tile went from the queue into the network."""
        ...

    def ran(self, model: str, *, tiles: int, voxels: int, seconds: float, busy: float, job: bool) -> None:
        """A batch was computed.

        Args:
            model: name and version.
            tiles: of the batch.
            voxels: the network's, halos and padding included.
            seconds: that the batch took.
            busy: seconds in which the device was at work since it was last told; batches side by side count once.
            job: whether it was a job's.
        """
        ...


class NoObserver:
    """Looks away."""

    def waited(self, seconds: float, *, job: bool) -> None:
        """Nothing."""

    def ran(self, model: str, *, tiles: int, voxels: int, seconds: float, busy: float, job: bool) -> None:
        """Nothing."""
