"""The command ``emboundary``."""

from __future__ import annotations

import sys
import warnings
from importlib.metadata import version
from typing import Annotated

import typer

from emboundary.service import console
from emboundary.service.commands.check import check
from emboundary.service.commands.client import create_client_cli
from emboundary.service.commands.demo import demo
from emboundary.service.commands.doctor import doctor
from emboundary.service.commands.models import models
from emboundary.service.commands.predict import predict
from emboundary.service.commands.serve import serve

NAME = "emboundary"


def create_cli() -> typer.Typer:
    """The command line with all its commands."""
    app = typer.Typer(
        help="Neuron boundaries in electron microscopy volumes.",
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(_options)
    for command in (predict, check, serve, models, doctor, demo):
        app.command()(command)
    app.add_typer(create_client_cli(), name="client")
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
