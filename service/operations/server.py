"""The life of the server process: it says when it listens, and ends in good order, in time, or at once."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable
from types import FrameType

import uvicorn
from fastapi import FastAPI

from emboundary.service.errors import UsageError
from emboundary.service.operations.protocol import protocol_of
from emboundary.service.security.keys import Keys
from emboundary.service.state import ServiceState

# What closing takes at most once nothing is in flight, in seconds; together with drain_s below the 30 s that those who
# stop services commonly wait before they kill.
CLOSING_S = 4.0
# Longer than the 60 s after which common proxies let go of a connection: they must be the ones who do.
_KEEP_ALIVE_S = 75
_log = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """uvicorn, with a protocol that has bounds, and two stages of stopping.

    The first SIGTERM or SIGINT: not ready at once, nothing new, what is in flight ends within ``drain_s``, jobs stop at
    a block.  The second one, or a process that is still there ``CLOSING_S`` later: the end, which jobs survive.  SIGHUP
    reads a file of keys again.

    Args:
        app: made by ``create_app``.
        state: what ``app`` carries.
        on_ready: called once connections are accepted.
    """

    def __init__(self, app: FastAPI, state: ServiceState, on_ready: Callable[[], None]) -> None:
        settings = state.settings
        config = uvicorn.Config(
            app,
            http=protocol_of(settings, state.metrics.refused),
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=settings.drain_s,
        )
        super().__init__(config)
        self._state = state
        self._on_ready = on_ready
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def rereads_keys(self) -> bool:
        """Whether SIGHUP has a meaning: where keys are in a file."""
        return self._state.settings.api_keys_file is not None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        self._on_ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            _end_at_once("told twice to stop: ending at once; jobs go on when the service runs again")
        # A signal comes between any two instructions, with whatever locks are held: the work is for the loop.
        if self._loop is not None:  # else nothing has begun
            self._loop.call_soon_threadsafe(self._drain, sig)
        super().handle_exit(sig, frame)

    def reload_keys(self) -> None:
        """Read the keys again, so that one can be added or taken away while the service runs; signals may call it."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._reload_keys)

    def _reload_keys(self) -> None:
        try:
            self._state.keys = Keys.of(self._state.settings)
        except UsageError as error:
            _log.error("the keys stay as they were: %s", error)
        else:
            _log.info("the keys were read again")

    def _drain(self, sig: int) -> None:
        drain_s = self._state.settings.drain_s
        _log.info("stopping", extra={"signal": signal.Signals(sig).name, "drain_s": drain_s})
        self._state.drain()
        watchdog = threading.Timer(
            drain_s + CLOSING_S,
            _end_at_once,
            ["still busy after the time to stop; jobs go on when the service runs again"],
        )
        watchdog.daemon = True
        watchdog.start()


def run(server: Server, listener: socket.socket) -> None:
    """Serve on a bound socket until told to stop; from the main thread."""
    # Once it has drained, uvicorn sends the signal that stopped it again: a stop that was asked for is no failure.
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    if server.rereads_keys:  # else it is what a terminal sends when it closes, and ends the service
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, lambda *_: server.reload_keys())
    try:
        server.run([listener])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_at_once(why: str) -> None:
    _log.error(why)
    os._exit(1)
