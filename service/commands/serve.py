"""``emboundary serve``: the HTTP service in this process, until it is told to stop."""

from __future__ import annotations

import errno
import socket
import sys
from pathlib import Path
from typing import Annotated

import typer

from emboundary.model.description import Precision
from emboundary.service.app import create_app, warm_up
from emboundary.service.engine import Device, OnnxEngine
from emboundary.service.errors import EmboundaryError
from emboundary.service.operations import server
from emboundary.service.operations.logs import logging_to
from emboundary.service.run.heap import keep_tight
from emboundary.service.security.exposure import refuse_open_to_others
from emboundary.service.security.jail import Jail
from emboundary.service.security.keys import Keys
from emboundary.service.security.redirects import held_redirects
from emboundary.service.settings import Settings, as_toml, load_settings


class AddressError(EmboundaryError):
    """An address that cannot be served on."""


def serve(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; 0.0.0.0 for every network.  [default: 127.0.0.1]")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port to listen on; 0 picks a free one.  [default: 8000]"),
    ] = None,
    device: Annotated[
        Device | None,
        typer.Option(help="auto takes a GPU if one works; cuda never falls back to the CPU.  [default: auto]"),
    ] = None,
    precision: Annotated[
        Precision | None,
        typer.Option(help="Arithmetic: float16 is for GPUs, int8 for CPUs; what a model offers.  [default: float32]"),
    ] = None,
    data_root: Annotated[
        list[Path] | None,
        typer.Option(exists=True, file_okay=False, help="Folder in which jobs may read and write; repeatable."),
    ] = None,
    url_prefix: Annotated[
        list[str] | None, typer.Option(metavar="URL", help="URL below which jobs may read volumes; repeatable.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Model that answers where a request names none: a name, or a path.  [default: d4]"),
    ] = None,
    repository: Annotated[
        Path | None,
        typer.Option(
            exists=True, file_okay=False, help="Folder of NAME/VERSION/model.onnx.  [default: the bundled models]"
        ),
    ] = None,
    state_dir: Annotated[
        Path | None, typer.Option(file_okay=False, help="Where jobs are kept.  [default: the user's state folder]")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="TOML file of settings; the environment and options go before it."),
    ] = None,
    no_auth: Annotated[
        bool | None, typer.Option("--no-auth", help="Let everybody do everything, though others can reach the service.")
    ] = None,
    print_settings: Annotated[
        bool, typer.Option("--print-settings", help="Print the settings in force as such a file, and stop.")
    ] = False,
) -> None:
    """Serve boundary maps over HTTP."""
    settings = load_settings(
        config,
        host=host,
        port=port,
        device=device,
        precision=precision,
        data_roots=data_root or None,
        url_prefixes=url_prefix or None,
        model=model,
        repository=repository,
        state_dir=state_dir,
        no_auth=no_auth,
    )
    if print_settings:
        typer.echo(as_toml(settings), nl=False)
        return
    refuse_open_to_others(settings, guarded=bool(Keys.of(settings)))
    jail = Jail(settings.data_roots, settings.url_prefixes)
    keep_tight()
    with _bound(settings.host, settings.port) as listener, logging_to(sys.stderr, settings), held_redirects(jail):
        app = create_app(settings)
        state = app.state.service
        warm_up(state)
        ready = _ready_line(settings, listener, state.models.default.engine())
        server.run(server.Server(app, state, lambda: typer.echo(ready)), listener)


def _ready_line(settings: Settings, listener: socket.socket, engine: OnnxEngine) -> str:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    address = f"http://{host}:{listener.getsockname()[1]}"
    return f"emboundary serves {engine.description.name} at {address} ({engine.device_reason})"


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
