"""How many cores this process may keep busy: what its affinity mask and the CPU quotas of its control groups leave.

A container that is started with ``--cpus=2`` sees every core of its host in the affinity mask; only its control group
knows of the quota.  One thread for each core of the host then uses the quota up early in each period, and all of them
stand still until the next.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def usable_cores(root: Path = Path("/")) -> int:
    """Threads that find a core: ``min(cores in the affinity mask, ceil(least quota / period))``, at least 1.

    A part of a core counts as one: a quota of 1.5 feeds two threads three quarters of the time.

    Args:
        root: where ``/proc`` and the control groups are looked up.
    """
    allowed = len(os.sched_getaffinity(0))
    return max(1, min([allowed, *(math.ceil(quota) for quota in _quotas(root))]))


def _quotas(root: Path) -> Iterator[float]:
    """The quotas, in cores, of this process's control groups and of all groups around them."""
    try:
        mounts = (root / "proc/self/mountinfo").read_text().splitlines()
        memberships = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # no Linux, or a /proc that hides them
        return
    # See proc_pid_mountinfo(5) and cgroups(7): version 2 has one nameless hierarchy, version 1 one for each controller.
    group_of = {
        controller: PurePosixPath(path)
        for _, controllers, path in (line.split(":", 2) for line in memberships)
        for controller in controllers.split(",")
    }
    for mount in mounts:
        before, _, after = mount.partition(" - ")
        inside, point = before.split()[3:5]
        kind, _, options = after.split(maxsplit=2)
        if kind == "cgroup2" and "" in group_of:
            group, read = group_of[""], _quota_of_version_2
        elif kind == "cgroup" and "cpu" in options.split(",") and "cpu" in group_of:
            group, read = group_of["cpu"], _quota_of_version_1
        else:
            continue
        # A mount shows the hierarchy from ``inside`` on; a group that lies elsewhere is seen from within: its own root.
        below = group.relative_to(inside) if group.is_relative_to(inside) else PurePosixPath()
        for folder in (below, *below.parents):
            quota = read(root / point.lstrip("/") / folder)
            if quota is not None:
                yield quota


def _quota_of_version_2(folder: Path) -> float | None:
    return _cores(*_words(folder / "cpu.max", 2))


def _quota_of_version_1(folder: Path) -> float | None:
    return _cores(*_words(folder / "cpu.cfs_quota_us", 1), *_words(folder / "cpu.cfs_period_us", 1))


def _words(path: Path, count: int) -> list[str]:
    try:
        words = path.read_text().split()
    except OSError:  # the root group has no such file
        words = []
    return words if len(words) == count else [""] * count


def _cores(quota_us: str, period_us: str) -> float | None:
    """None without a limit, which is written ``max`` or -1."""
    if not (quota_us.isdecimal() and period_us.isdecimal() and int(period_us)):
        return None
    return int(quota_us) / int(period_us)
