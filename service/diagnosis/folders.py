"""The folders that serving works in: that of its jobs' state, and the data roots."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from emboundary.service.diagnosis.apart import ProbeError, ask
from emboundary.service.finding import Finding

_PATIENCE_S = 30.0


def check_data_root(folder: Path) -> Finding:
    """Whether jobs can read in a data root and write there, and how fast."""
    subject = "data root"
    disk, error = _look(folder)
    if disk is None:
        return Finding(
            subject, "failed", f"{folder}: {error}", "see whether its disk or server answers", _facts(folder)
        )
    facts = _facts(folder, disk)
    if not disk["exists"]:
        return Finding(subject, "failed", f"{folder} is no folder", "make it, or name another --data-root", facts)
    if not disk["readable"]:
        remedy = "let the user that serves read it"
        return Finding(subject, "failed", f"{folder} cannot be read", remedy, facts)
    if not disk["writable"]:
        remedy = "let the user that serves write there, if jobs are to store maps in it"
        return Finding(subject, "note", f"{folder} can be read, not written to ({disk['error']})", remedy, facts)
    return Finding(subject, "ok", f"{folder}: {_speed(disk)}", facts=facts)


def check_state(folder: Path, *, used: bool) -> Finding:
    """Whether the jobs' state can be kept.

    Args:
        folder: where; it need not exist yet.
        used: whether jobs are possible at all.
    """
    subject = "state folder"
    there = next(f for f in (folder, *folder.absolute().parents) if f.exists())
    disk, error = _look(there)
    remedy = "name a folder as EMBOUNDARY_STATE_DIR or --state-dir that the user that serves may write to"
    if disk is None:
        return Finding(subject, "failed" if used else "note", f"{folder}: {error}", remedy, _facts(folder))
    facts = _facts(folder, disk)
    if not disk["writable"]:
        found = f"{there} cannot be written to ({disk['error'] or 'it is no folder'})"
        if not used:
            return Finding(subject, "ok", f"{found}; without data roots there are no jobs to keep", facts=facts)
        return Finding(subject, "failed", found, remedy, facts)
    made = "" if there == folder else ", made when it is needed"
    return Finding(subject, "ok", f"{folder}{made}: {_speed(disk)}", facts=facts)


def _look(folder: Path) -> tuple[dict[str, Any] | None, str]:
    try:
        return ask("disk", {"folder": str(folder.absolute())}, _PATIENCE_S), ""
    except ProbeError as error:
        return None, str(error)


def _speed(disk: dict[str, Any]) -> str:
    free = f"{disk['free_bytes'] / 1e9:.0f} GB free"
    write, read = disk["write_bytes_per_second"], disk["read_bytes_per_second"]
    if write is None:
        return f"{free}, too little for a test of its speed"
    return f"{free}; a short test wrote {write / 1e6:.0f} MB/s and read {read / 1e6:.0f} MB/s"


def _facts(folder: Path, disk: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"folder": str(folder), **(disk or {})}
