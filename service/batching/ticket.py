"""What waits for the device: tickets, one for each request, and their tiles."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from emboundary.service.engine import Answer, ModelEngine, Part


@dataclass(frozen=True, eq=False)
class Tile:
    """What goes through the network in one piece.

    Attributes:
        engine: the network.
        shape: of its images (n, y, x), y and x multiples of the network's stride.
        part: reads the voxels (n, c, y, x); called just before they are needed, again after a failure.
        accept: takes the map; what it raises fails the ticket.
    """

    engine: ModelEngine
    shape: tuple[int, int, int]
    part: Callable[[], Part]
    accept: Callable[[Answer], None]

    @property
    def pixels(self) -> int:
        """What the network sees of it: its cost."""
        n, y, x = self.shape
        return n * y * x


class Ticket:
    """The tiles of one request on their way; changed by the scheduler alone, under its lock.

    Args:
        client: whose it is: clients get equal shares of the device.
        tiles: in the order in which they are computed.
        deadline: on the scheduler's clock, in seconds; tiles that wait then are dropped.
        job: whether it belongs to a job, and waits behind all others.
        on_end: called once, with None when all tiles are computed, else with the error; must return at once.

    Attributes:
        entered: when it was submitted, on the scheduler's clock.
        started: when its first tile went into the network; None before.
        ended: whether ``on_end`` has been called.
    """

    def __init__(
        self,
        client: str,
        tiles: Iterable[Tile],
        *,
        deadline: float | None = None,
        job: bool = False,
        on_end: Callable[[BaseException | None], None],
    ) -> None:
        self.client = client
        self.tiles = deque(tiles)
        self.deadline = deadline
        self.job = job
        self.entered = 0.0
        self.started: float | None = None
        self.ended = False
        self._left = len(self.tiles)
        self._on_end = on_end

    @property
    def pixels(self) -> int:
        """Cost of the tiles that wait."""
        return sum(tile.pixels for tile in self.tiles)

    def computed(self) -> None:
        """One tile more is done."""
        self._left -= 1
        if not self._left:
            self.end(None)

    def end(self, error: BaseException | None) -> None:
        """Call ``on_end``, unless that was done before."""
        if not self.ended:
            self.ended = True
            self.tiles.clear()
            self._on_end(error)
