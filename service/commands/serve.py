"""``emboundary serve``: the HTTP service in this process, until it is told to stop."""

from __future__ import annotations

import errno
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
import uvicorn
from pydantic import ValidationError

from emboundary.model.repository import DEFAULT_MODEL
from emboundary.service.app import create_app, warm_up
from emboundary.service.commands import options
from emboundary.service.errors import EmboundaryError, UsageError
from emboundary.service.settings import Settings


class AddressError(EmboundaryError):
    """An address that cannot be served on."""


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for every network.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 picks a free one.")] = 8000,
    device: options.DeviceChoice = "auto",
    data_root: Annotated[
        list[Path] | None,
        typer.Option(
            exists=True, file_okay=False, help="Folder whose volumes the service may open itself; repeatable."
        ),
    ] = None,
    model: Annotated[
        str, typer.Option(help="Model that answers where a request names none: a bundled name, or a path.")
    ] = DEFAULT_MODEL,
) -> None:
    """Serve boundary maps over HTTP."""
    try:
        settings = Settings(model=model, device=device, data_roots=tuple(data_root or ()))
    except ValidationError as error:
        raise _explained(error) from error
    with _bound(host, port) as listener:
        app = create_app(settings)
        state = app.state.service
        warm_up(state)
        engine = state.models.default.engine()
        address = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
        ready = f"emboundary serves {engine.description.name} at {address} ({engine.device_reason})"
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=settings.drain_s)
        _run(_Server(config, lambda: typer.echo(ready)), listener)


class _Server(uvicorn.Server):
    """Says when it listens."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()


def _run(server: uvicorn.Server, listener: socket.socket) -> None:
    # Once it has drained, uvicorn sends the signal that stopped it again: a stop that was asked for is no failure.
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        server.run([listener])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _bound(host: str, port: int) -> socket.socket:
    """A socket that holds the address, before anything slow is done; it does not listen yet."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named as TCP, which asyncio wants to see before it turns Nagle's algorithm off: else every answer waits 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise AddressError(
                f"port {port} of {host} is in use; give another --port, or 0 for any free one"
            ) from error
        raise AddressError(
            f"cannot listen on host {host}, port {port} ({error.strerror or error}); give an address of this machine "
            "as --host and a port that you may use"
        ) from error
    return listener


def _explained(error: ValidationError) -> UsageError:
    first = error.errors()[0]
    name = str(first["loc"][0])
    return UsageError(
        f"{name} is {first['input']!r}: {first['msg']}; change the option, or the environment variable "
        f"EMBOUNDARY_{name.upper()}"
    )
