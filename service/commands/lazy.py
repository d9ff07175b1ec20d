"""Commands that are imported when they are asked for: `emboundary --version` need not load a web server first."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup


class LazyGroup(TyperGroup):
    """A group whose commands are imported one by one; the help of the group itself needs them all.

    Attributes:
        lazy: where each command is, ``MODULE:NAME``: a function, or a ``typer.Typer`` with commands of its own.
    """

    lazy: ClassVar[Mapping[str, str]]

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        # Names alone, in their order, for help and for what is suggested after a slip of the keyboard.
        self.commands = {**{name: TyperCommand(name) for name in self.lazy}, **self.commands}

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of a name, imported now; None where there is none."""
        if cmd_name not in self.lazy:
            return super().get_command(ctx, cmd_name)
        module, _, name = self.lazy[cmd_name].partition(":")
        found = getattr(import_module(module), name)
        if not isinstance(found, typer.Typer):
            alone = typer.Typer(add_completion=False, rich_markup_mode=None)
            alone.command()(found)
            found = alone
        return typer.main.get_command(found)
