"""``emboundary doctor``: what is installed, what works, and what to do about the rest."""

from __future__ import annotations

import dataclasses
import json

import typer
from rich.console import Console

from emboundary.service.commands import options
from emboundary.service.commands.findings import findings_table
from emboundary.service.diagnosis import diagnose


def doctor(as_json: options.AsJson = False) -> None:
    """Check the installation; exit code 1 if something that is needed does not work."""
    findings = diagnose()
    well = all(finding.state != "failed" for finding in findings)
    if as_json:
        typer.echo(json.dumps({"ok": well, "checks": [dataclasses.asdict(finding) for finding in findings]}))
    else:
        Console().print(findings_table(findings))
    raise typer.Exit(0 if well else 1)
