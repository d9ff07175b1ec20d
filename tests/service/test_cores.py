from __future__ import annotations

import os
from pathlib import Path

import pytest

from emboundary.service.cores import usable_cores

V2 = "30 23 0:26 {inside} /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = "32 31 0:29 {inside} /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"
NO_CPU = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
GROUPS = "sys/fs/cgroup"
GROUPS_V1 = "sys/fs/cgroup/cpu,cpuacct"


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


def machine(root: Path, mounts: str, memberships: str, files: dict[str, str]) -> Path:
    everything = {"proc/self/mountinfo": mounts, "proc/self/cgroup": memberships, **files}
    for name, text in everything.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("cpu_max", "cores"),
    [
        ("max 100000\n", 8),
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),
        ("1000 100000\n", 1),
        ("6400000 100000\n", 8),
        ("", 8),
        ("nonsense 1\n", 8),
        ("100000 0\n", 8),
    ],
)
def test_a_container_uses_its_quota_and_no_more_than_its_mask(tmp_path: Path, cpu_max: str, cores: int) -> None:
    root = machine(tmp_path, V2.format(inside="/"), "0::/\n", {f"{GROUPS}/cpu.max": cpu_max})
    assert usable_cores(root) == cores


def test_the_tightest_of_the_groups_around_it_counts(tmp_path: Path) -> None:
    files = {
        f"{GROUPS}/cpu.max": "800000 100000\n",
        f"{GROUPS}/pod/cpu.max": "300000 100000\n",
        f"{GROUPS}/pod/one/cpu.max": "500000 100000\n",
        f"{GROUPS}/other/cpu.max": "100000 100000\n",
    }
    assert usable_cores(machine(tmp_path, V2.format(inside="/"), "0::/pod/one\n", files)) == 3


def test_a_group_is_found_in_a_mount_that_shows_only_a_part_of_the_hierarchy(tmp_path: Path) -> None:
    files = {f"{GROUPS}/cpu.max": "500000 100000\n", f"{GROUPS}/inner/cpu.max": "400000 100000\n"}
    assert usable_cores(machine(tmp_path, V2.format(inside="/docker/abc"), "0::/docker/abc/inner\n", files)) == 4


def test_a_group_outside_of_what_is_mounted_is_its_mount(tmp_path: Path) -> None:
    root = machine(tmp_path, V2.format(inside="/docker/abc"), "0::/\n", {f"{GROUPS}/cpu.max": "400000 100000\n"})
    assert usable_cores(root) == 4


@pytest.mark.parametrize(("quota", "cores"), [("-1\n", 8), ("250000\n", 3)])
def test_quotas_of_the_first_version_count_too(tmp_path: Path, quota: str, cores: int) -> None:
    files = {
        f"{GROUPS_V1}/docker/abc/cpu.cfs_quota_us": quota,
        f"{GROUPS_V1}/docker/abc/cpu.cfs_period_us": "100000\n",
        f"{GROUPS}/memory/cpu.cfs_quota_us": "100000\n",
        f"{GROUPS}/memory/cpu.cfs_period_us": "100000\n",
    }
    memberships = "5:memory:/\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/a:b\n0::/\n"
    assert usable_cores(machine(tmp_path, NO_CPU + V1.format(inside="/"), memberships, files)) == cores


def test_without_control_groups_the_mask_counts(tmp_path: Path) -> None:
    assert usable_cores(tmp_path) == 8


def test_here_it_is_no_more_than_the_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert 1 <= usable_cores() <= len(os.sched_getaffinity(0))
