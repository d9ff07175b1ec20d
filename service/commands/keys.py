"""``emboundary keys``: API keys for ``emboundary serve``."""

from __future__ import annotations

from typing import Annotated

import typer

from emboundary.service.security.keys import SCOPES, new_key, parse_scopes

keys = typer.Typer(help="API keys for `emboundary serve`.", add_completion=False, rich_markup_mode=None)


@keys.callback()
def _group() -> None:
    """API keys for `emboundary serve`."""


@keys.command("new")
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who will use it: letters, digits, dots and dashes.")],
    scopes: Annotated[
        str, typer.Option(metavar="SCOPE+SCOPE", help=f"What it opens: {', '.join(SCOPES)}, joined by +.")
    ] = "predict",
) -> None:
    """Make a key.

    It is shown this once, on stderr; the line for the service's file of keys goes to stdout.
    """
    secret, key = new_key(name, parse_scopes(scopes))
    typer.echo(f"the key, shown this once, for {key.name}: {secret}", err=True)
    typer.echo(key.line)
