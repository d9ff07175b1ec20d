"""Tickets for coroutines: the device's threads end them, the event loop hears of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from emboundary.service.batching.scheduler import Scheduler
from emboundary.service.batching.ticket import Ticket, Tile


def submit(
    scheduler: Scheduler, client: str, tiles: Iterable[Tile], seconds: float
) -> tuple[Ticket, asyncio.Future[None]]:
    """Queue tiles that are dropped after so many seconds; the future ends when the ticket does.

    Raises:
        TooLongError, OverloadedError, StoppedError: see ``Scheduler.submit``.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def end(error: BaseException | None) -> None:
        loop.call_soon_threadsafe(_settle, ended, error)

    ticket = Ticket(client, tiles, deadline=scheduler.deadline(seconds), on_end=end)
    scheduler.submit(ticket)
    return ticket, ended


def _settle(future: asyncio.Future[None], error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
        future.exception()  # nobody may be left to ask for it
