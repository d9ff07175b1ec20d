"""A queue in which clients get equal shares of the device, however many tiles each has waiting.

Start-time fair queueing (Goyal, Vin and Cheng 1996): every client has a virtual time that advances by the pixels that
it was given; the client that is furthest behind is next.  One that comes, or comes back, starts at the time of the
one that is served, so that nobody saves up shares while away.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from emboundary.service.batching.ticket import Ticket, Tile


@dataclass
class _Line:
    """One client's tickets, first come first served."""

    time: float
    tickets: deque[Ticket] = field(default_factory=deque)


class FairQueue:
    """Tickets by client; not thread-safe by itself.

    Attributes:
        tiles: how many wait.
    """

    def __init__(self) -> None:
        self.tiles = 0
        self._lines: dict[str, _Line] = {}
        self._time = 0.0

    def __iter__(self) -> Iterator[Ticket]:
        """All tickets with waiting tiles."""
        for line in self._lines.values():
            yield from line.tickets

    def add(self, ticket: Ticket) -> None:
        """Take in a ticket behind its client's others."""
        line = self._lines.setdefault(ticket.client, _Line(self._time))
        if not line.tickets:
            line.time = max(line.time, self._time)
        line.tickets.append(ticket)
        self.tiles += len(ticket.tiles)

    def remove(self, ticket: Ticket) -> None:
        """Forget a ticket and its waiting tiles; nothing where it is not there."""
        line = self._lines.get(ticket.client)
        if line is not None and ticket in line.tickets:
            line.tickets.remove(ticket)
            self.tiles -= len(ticket.tiles)

    def take(self, fits: Callable[[Tile], bool] = lambda _: True) -> tuple[Ticket, Tile] | None:
        """The next tile that fits, in fair order; None where there is none."""
        for line in sorted(self._lines.values(), key=lambda line: line.time):
            for ticket in line.tickets:
                if fits(ticket.tiles[0]):
                    return ticket, self._pop(line, ticket)
        return None

    def _pop(self, line: _Line, ticket: Ticket) -> Tile:
        tile = ticket.tiles.popleft()
        self.tiles -= 1
        self._time = max(self._time, line.time)
        line.time += tile.pixels
        if not ticket.tiles:
            line.tickets.remove(ticket)
        # Who is away and has no debt is as good as new.
        for client in [c for c, other in self._lines.items() if not other.tickets and other.time <= self._time]:
            del self._lines[client]
        return tile
