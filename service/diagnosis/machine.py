"""The cores and the memory that this process may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from emboundary.service.cores import usable_cores
from emboundary.service.finding import Finding

_GIB = 2**30
# Beside requests: the interpreter, the network and what it computes in, as a rule of thumb.
_OWN_BYTES = _GIB


def check_cores(root: Path = Path("/")) -> Finding:
    """How many cores may be kept busy."""
    cores, there = usable_cores(root), os.cpu_count() or 1
    words = f"{cores}" if cores == there else f"{cores} of {there}: affinity or a container's quota"
    return Finding("cores", "ok", words, facts={"usable": cores, "machine": there})


def check_memory(queue_bytes: int, root: Path = Path("/")) -> Finding:
    """Memory of the machine and the limits of its control groups, against what requests may hold.

    Args:
        queue_bytes: that all requests together may hold.
        root: where ``/proc`` and the control groups are looked up.
    """
    table = _meminfo(root)
    total, available = table.get("MemTotal"), table.get("MemAvailable")
    # Version 1 writes a number above any memory where there is no limit.
    limit = min((n for n in _limits(root) if total is None or n < total), default=None)
    facts = {"total_bytes": total, "available_bytes": available, "limit_bytes": limit}
    if total is None:
        return Finding("memory", "note", "/proc/meminfo cannot be read", facts=facts)
    most = total if limit is None else min(limit, total)
    words = f"{most / _GIB:.1f} GiB" + (" (limit of the container)" if most < total else "")
    if available is not None:
        words += f"; {min(available, most) / _GIB:.1f} GiB free" if most == total else ""
    if most < queue_bytes + _OWN_BYTES:
        return Finding(
            "memory",
            "note",
            f"{words}; requests may hold {queue_bytes / _GIB:.1f} GiB of it, which leaves too little",
            "set EMBOUNDARY_QUEUE_BYTES lower, or give the service more memory",
            facts,
        )
    return Finding("memory", "ok", words, facts=facts)


def _meminfo(root: Path) -> dict[str, int]:
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
    except OSError:
        return {}
    words = [line.split() for line in lines]
    return {w[0].rstrip(":"): int(w[1]) * 1024 for w in words if len(w) == 3 and w[2] == "kB"}


def _limits(root: Path) -> Iterator[int]:
    """Limits of this process's control groups and of those around them; see cgroups(7)."""
    try:
        memberships = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in memberships:
        number, controllers, path = line.split(":", 2)
        if number == "0":
            base, name = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            base, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        group = PurePosixPath(path.lstrip("/"))
        for folder in {group, *group.parents, PurePosixPath()}:
            try:
                text = (base / folder / name).read_text().strip()
            except OSError:  # the root group has no such file
                continue
            if text.isdecimal():
                yield int(text)
