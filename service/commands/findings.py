"""How findings are shown to people."""

from __future__ import annotations

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from emboundary.service.finding import Finding

_MARKS = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "failed": "[red]failed[/]"}


def findings_table(findings: Sequence[Finding], *, subject_width: int = 0) -> Table:
    """One row each: its mark, its subject, what was found, and below that what to do.

    Args:
        findings: to show.
        subject_width: in characters at least, so that several tables below each other look like one.
    """
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(width=max(map(len, _MARKS)))
    table.add_column(min_width=subject_width)
    table.add_column()
    for finding in findings:
        remedy = f"\n[bold]{escape(finding.remedy)}[/]" if finding.remedy else ""
        table.add_row(_MARKS[finding.state], finding.subject, escape(finding.found) + remedy)
    return table
