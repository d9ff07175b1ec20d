from __future__ import annotations

import os
from pathlib import Path

import pytest

from emboundary.service.diagnosis.disk import FILE_BYTES, look
from emboundary.service.diagnosis.folders import check_data_root, check_state
from emboundary.service.diagnosis.machine import check_cores, check_memory

GIB = 2**30
TABLE = (
    "MemTotal:       16777216 kB\nMemFree:         100000 kB\nMemAvailable:    8388608 kB\nHugePages_Total:       0\n"
)


def machine(root: Path, memory: str = TABLE, cgroup: str = "0::/\n", **limits: str) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(memory)
    (root / "proc/self/cgroup").write_text(cgroup)
    for path, text in limits.items():
        file = root / "sys/fs/cgroup" / path.replace("__", "/").replace("_max", ".max")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def test_memory_is_that_of_the_machine(tmp_path: Path) -> None:
    finding = check_memory(GIB, machine(tmp_path))
    assert (finding.state, finding.found) == ("ok", "16.0 GiB; 8.0 GiB free")
    assert finding.facts == {"total_bytes": 16 * GIB, "available_bytes": 8 * GIB, "limit_bytes": None}


def test_the_limit_of_a_container_goes_before_it(tmp_path: Path) -> None:
    finding = check_memory(GIB, machine(tmp_path, cgroup="0::/pod/us\n", pod__memory_max=str(4 * GIB)))
    assert (finding.state, finding.found) == ("ok", "4.0 GiB (limit of the container)")
    assert finding.facts["limit_bytes"] == 4 * GIB


def test_a_group_without_a_limit_sets_none(tmp_path: Path) -> None:
    assert check_memory(GIB, machine(tmp_path, memory_max="max\n")).facts["limit_bytes"] is None


def test_the_first_version_of_control_groups_is_read_as_well(tmp_path: Path) -> None:
    root = machine(tmp_path, cgroup="5:memory:/box\n1:cpu:/\n")
    (root / "sys/fs/cgroup/memory/box").mkdir(parents=True)
    (root / "sys/fs/cgroup/memory/box/memory.limit_in_bytes").write_text(f"{3 * GIB}\n")
    assert check_memory(GIB, root).facts["limit_bytes"] == 3 * GIB
    (root / "sys/fs/cgroup/memory/box/memory.limit_in_bytes").write_text(f"{2**63 - 4096}\n")
    assert check_memory(GIB, root).facts["limit_bytes"] is None


def test_requests_that_could_fill_the_memory_are_worth_a_note(tmp_path: Path) -> None:
    finding = check_memory(GIB, machine(tmp_path, memory_max=str(GIB)))
    assert finding.state == "note"
    assert "requests may hold 1.0 GiB of it, which leaves too little" in finding.found
    assert "EMBOUNDARY_QUEUE_BYTES" in finding.remedy


def test_a_system_without_that_table_is_no_failure(tmp_path: Path) -> None:
    assert check_memory(GIB, tmp_path).state == "note"


def test_cores_are_counted() -> None:
    finding = check_cores()
    assert finding.state == "ok"
    assert 1 <= finding.facts["usable"] <= finding.facts["machine"]


def test_a_folders_disk_is_measured_and_nothing_stays(tmp_path: Path) -> None:
    disk = look(tmp_path)
    assert (disk.exists, disk.readable, disk.writable, disk.error) == (True, True, True, "")
    assert disk.free_bytes is not None
    assert disk.write_bytes_per_second is not None
    assert disk.read_bytes_per_second is not None
    assert disk.write_bytes_per_second > 0
    assert disk.read_bytes_per_second > 0
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_nearly_full_is_not_filled_further(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = os.statvfs_result((4096, 4096, 1, 1, FILE_BYTES // 4096, 0, 0, 0, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _: full)
    disk = look(tmp_path)
    assert (disk.writable, disk.free_bytes, disk.write_bytes_per_second) == (True, FILE_BYTES, None)


def answers(monkeypatch: pytest.MonkeyPatch, **disk: object) -> None:
    whole = {"exists": True, "readable": True, "writable": True, "error": "", "free_bytes": 5 * 10**9}
    speeds = {"write_bytes_per_second": 2e8, "read_bytes_per_second": 4e8}
    monkeypatch.setattr("emboundary.service.diagnosis.folders.ask", lambda *_: {**whole, **speeds, **disk})


def test_a_data_root_shows_its_speed_as_a_short_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch)
    found = f"{tmp_path}: 5 GB free; a short test wrote 200 MB/s and read 400 MB/s"
    assert (check_data_root(tmp_path).state, check_data_root(tmp_path).found) == ("ok", found)


@pytest.mark.parametrize(
    ("disk", "state", "found"),
    [
        ({"exists": False}, "failed", "is no folder"),
        ({"readable": False}, "failed", "cannot be read"),
        ({"writable": False, "error": "Read-only file system"}, "note", "not written to (Read-only file system)"),
        ({"write_bytes_per_second": None}, "ok", "too little for a test of its speed"),
    ],
)
def test_a_data_root_that_lacks_something_says_what(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disk: dict[str, object], state: str, found: str
) -> None:
    answers(monkeypatch, **disk)
    finding = check_data_root(tmp_path)
    assert finding.state == state
    assert found in finding.found
    assert bool(finding.remedy) == (state != "ok")


def test_a_state_folder_need_not_exist_yet(tmp_path: Path) -> None:
    finding = check_state(tmp_path / "a/b", used=True)
    assert finding.state == "ok"
    assert finding.found.startswith(f"{tmp_path / 'a/b'}, made when it is needed: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("used", "state"), [(True, "failed"), (False, "ok")])
def test_state_that_cannot_be_kept_matters_where_there_are_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, used: bool, state: str
) -> None:
    answers(monkeypatch, writable=False, error="Permission denied")
    finding = check_state(tmp_path, used=used)
    assert finding.state == state
    assert "cannot be written to (Permission denied)" in finding.found
