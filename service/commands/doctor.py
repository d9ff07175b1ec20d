"""``emboundary doctor``: what is installed, what works, and what to do about the rest."""

# Nothing is imported here that may be what is missing: not the options of other commands, which know the runtime.
from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from emboundary.service.commands.findings import findings_table
from emboundary.service.diagnosis import Finding, Question, diagnose

# That of the longest subject, "CUDA libraries": findings are shown one by one, because some take seconds.
_SUBJECT_WIDTH = 14


def doctor(
    config: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="TOML file of settings; the environment and options go before it."),
    ] = None,
    data_root: Annotated[
        list[Path] | None, typer.Option(help="Folder in which jobs may read and write; repeatable.")
    ] = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda"] | None,
        typer.Option(help="cuda fails without a GPU that works.  [default: auto]"),
    ] = None,
    repository: Annotated[
        Path | None, typer.Option(help="Folder of NAME/VERSION/model.onnx.  [default: the bundled models]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Check whether serving with these settings will work; exit code 1 if it will not.

    Options stand before the environment, and that before the file, as they do for `emboundary serve`.
    """
    options = {
        "data_roots": [str(root) for root in data_root] if data_root else None,
        "device": device,
        "repository": None if repository is None else str(repository),
    }
    given = {name: value for name, value in options.items() if value is not None}
    findings = diagnose(Question(config, given))
    if as_json:
        found = list(findings)
        well = is_well(found)
        typer.echo(json.dumps({"ok": well, "checks": [dataclasses.asdict(finding) for finding in found]}))
    else:
        console = Console(highlight=False)
        found = []
        for finding in findings:
            console.print(findings_table([finding], subject_width=_SUBJECT_WIDTH))
            found.append(finding)
        well = is_well(found)
        console.print(_verdict(found))
    raise typer.Exit(0 if well else 1)


def is_well(findings: list[Finding]) -> bool:
    """Whether serving will work."""
    return all(finding.state != "failed" for finding in findings)


def _verdict(findings: list[Finding]) -> str:
    failed = [finding.subject for finding in findings if finding.state == "failed"]
    notes = sum(finding.state == "note" for finding in findings)
    if failed:
        return f"[bold red]Serving will not work as set[/]: {', '.join(failed)}"
    return "[bold green]Serving will work[/]" + (f"; {notes} note{'s' if notes > 1 else ''} above" if notes else "")
