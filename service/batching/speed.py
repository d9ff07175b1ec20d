"""How long a network takes, learned from what it took."""

from __future__ import annotations

from weakref import WeakKeyDictionary

from emboundary.service.engine import ModelEngine

# Share of the newest batch in the estimate: it follows a busy machine within a few batches.
_NEWEST = 0.2


class Speed:
    """Seconds per pixel of every network, as an exponential moving mean weighted by pixels."""

    def __init__(self) -> None:
        self._seconds_per_pixel: WeakKeyDictionary[ModelEngine, float] = WeakKeyDictionary()

    def learn(self, engine: ModelEngine, pixels: int, seconds: float) -> None:
        """Take in one batch."""
        now = seconds / pixels
        before = self._seconds_per_pixel.get(engine, now)
        self._seconds_per_pixel[engine] = before + _NEWEST * (now - before)

    def seconds(self, engine: ModelEngine, pixels: int) -> float:
        """Estimate for so many pixels; 0 for a network that has not run yet."""
        return pixels * self._seconds_per_pixel.get(engine, 0.0)
