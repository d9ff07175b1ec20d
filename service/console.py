"""The edge of every command: exceptions become one line on stderr and an exit code, never a traceback."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Sequence

import typer

from emboundary.service.errors import EmboundaryError

DONE, FAILED, WRONG_USAGE = 0, 1, 2
_DEBUG = "EMBOUNDARY_DEBUG"


def run(app: typer.Typer, name: str, arguments: Sequence[str]) -> int:
    """Run a command line and return its exit code: 0 done, 1 failed, 2 wrong usage."""
    try:
        with warnings.catch_warnings():
            if not sys.warnoptions:
                warnings.simplefilter("ignore")  # a user can do nothing about a library's warnings
            code = app(list(arguments), prog_name=name, standalone_mode=False)
    except typer.TyperException as error:
        return _fail(name, f"{error.format_message().rstrip('.')}; `{name} --help` shows the options", WRONG_USAGE)
    except EmboundaryError as error:
        return _fail(name, str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _fail(name, "interrupted", FAILED)
    except MemoryError:
        return _fail(name, "out of memory; give a smaller --tile, or free some", FAILED)
    except Exception as error:
        if os.environ.get(_DEBUG):
            traceback.print_exc()
        reason = (str(error).strip() or "no message").splitlines()[0]
        line = f"a defect of emboundary: {type(error).__name__}: {reason}"
        return _fail(name, f"{line}; {_DEBUG}=1 in the environment shows where: please report it", FAILED)
    # Typer turns an interrupt into a number of its own.
    code = DONE if code is None else code
    return code if code in (DONE, FAILED, WRONG_USAGE) else _fail(name, "interrupted", FAILED)


def _fail(name: str, line: str, code: int) -> int:
    typer.echo(f"{name}: error: {' '.join(line.split())}", err=True)
    return code
