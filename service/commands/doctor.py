"""``emboundary doctor``: what is installed, what works, and what to do about the rest."""

from __future__ import annotations

import dataclasses
import json

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from emboundary.service.commands import options
from emboundary.service.diagnosis import Finding, diagnose

_MARKS = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "failed": "[red]failed[/]"}


def doctor(as_json: options.AsJson = False) -> None:
    """Check the installation; exit code 1 if something that is needed does not work."""
    findings = diagnose()
    well = all(finding.state != "failed" for finding in findings)
    if as_json:
        typer.echo(json.dumps({"ok": well, "checks": [dataclasses.asdict(finding) for finding in findings]}))
    else:
        Console().print(_table(findings))
    raise typer.Exit(0 if well else 1)


def _table(findings: list[Finding]) -> Table:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for finding in findings:
        remedy = f"\n[bold]{escape(finding.remedy)}[/]" if finding.remedy else ""
        table.add_row(_MARKS[finding.state], finding.subject, escape(finding.found) + remedy)
    return table
