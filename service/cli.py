"""The command ``emboundary``."""

from __future__ import annotations

import sys
import warnings
from importlib.metadata import version
from typing import Annotated, ClassVar

import typer

from emboundary.service import console
from emboundary.service.commands.lazy import LazyGroup

NAME = "emboundary"


class _Commands(LazyGroup):
    """All commands but none of their imports."""

    lazy: ClassVar[dict[str, str]] = {
        name: f"emboundary.service.commands.{name}:{name}"
        for name in ("predict", "check", "serve", "keys", "models", "doctor", "benchmark", "demo", "client")
    }


def create_cli() -> typer.Typer:
    """The command line with all its commands."""
    app = typer.Typer(
        cls=_Commands,
        help="Neuron boundaries in electron microscopy volumes.",
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(_options)
    return app


def main() -> None:
    """Entry point of the command ``emboundary``."""
    if not sys.warnoptions:
        # To the very end of the process: an interrupt can leave a library with something to warn of as it goes.
        warnings.simplefilter("ignore")
    sys.exit(console.run(create_cli(), NAME, sys.argv[1:]))


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"{NAME} {version(NAME)}")
        raise typer.Exit


def _options(
    _: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options of the command itself."""
