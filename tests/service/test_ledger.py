from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emboundary.service.errors import OutputError
from emboundary.service.run.ledger import Header, Ledger, differences, read_header

HEADER = Header({"model": "abc", "tta": False}, {"intensity": [128.5, 40.25]})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.jsonl"


def test_what_is_marked_is_found_again(path: Path) -> None:
    with Ledger.begin(path, HEADER) as ledger:
        ledger.mark(0, [0, 5, 100_000])
        ledger.mark(1, [3])
        ledger.mark(0, [5])
    with Ledger(path) as again:
        assert [n for n in (0, 1, 4, 5, 6, 99_999, 100_000, 10**9) if again.done(0, n)] == [0, 5, 100_000]
        assert (again.count(0), again.count(1), again.count(2)) == (3, 1, 0)
        assert again.done(1, 3)
        assert not again.done(2, 3)
    assert read_header(path) == HEADER
    assert sorted(item.name for item in path.parent.iterdir()) == [path.name]


@settings(deadline=None)
@given(cut=st.integers(1, 400))
def test_a_line_that_was_cut_short_is_dropped_and_no_other(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("cut") / "ledger.jsonl"
    with Ledger.begin(path, HEADER) as ledger:
        first = path.stat().st_size
        for number in range(8):
            ledger.mark(0, [number])
    whole = path.read_bytes()
    path.write_bytes(whole[: max(first, len(whole) - cut)])
    lines = path.read_bytes().count(b"\n") - 1
    with Ledger(path) as again:
        assert [again.done(0, n) for n in range(8)] == [n < lines for n in range(8)]
        again.mark(0, [7])
    with Ledger(path) as once_more:
        assert once_more.done(0, 7)


def test_a_first_line_that_was_cut_short_is_no_ledger(path: Path) -> None:
    Ledger.begin(path, HEADER).close()
    path.write_bytes(path.read_bytes()[:-1])
    assert read_header(path) is None
    assert read_header(path.with_name("nothing")) is None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"format": 2}\n', "has format 2, this version knows 1: go on with the version"),
        (b"no json\n", "is damaged; give --overwrite to start over"),
        (b"[]\n", "is damaged; give --overwrite to start over"),
    ],
)
def test_other_ledgers_are_refused(path: Path, line: bytes, message: str) -> None:
    path.write_bytes(line)
    with pytest.raises(OutputError, match=message):
        read_header(path)


def test_damage_in_the_middle_is_refused(path: Path) -> None:
    with Ledger.begin(path, HEADER) as ledger:
        ledger.mark(0, [1])
    with path.open("ab") as file:
        file.write(b'{"level": 0, "done": 7}\n')
    with pytest.raises(OutputError, match=r"ledger\.jsonl is damaged at byte \d+; give --overwrite"):
        Ledger(path)


def test_filled_blocks_are_done_and_remembered_and_missing_ones_are_not(path: Path) -> None:
    with Ledger.begin(path, HEADER) as ledger:
        ledger.note_missing(0, 1, "0:1,0:2,0:3", "damaged")
        ledger.note_missing(0, 2, "0:1,0:2,3:6", "damaged")
        ledger.note_filled(0, 2, "0:1,0:2,3:6", "damaged", 0.5)
    with Ledger(path) as again:
        assert not again.done(0, 1)
        assert again.done(0, 2)
        assert again.filled == [{"box": "0:1,0:2,3:6", "reason": "damaged", "value": 0.5}]


def test_a_full_disk_leaves_no_half_line(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write

    def full(file: int, data: Any) -> int:
        return write(file, data[:5])

    with Ledger.begin(path, HEADER) as ledger:
        ledger.mark(0, [1])
        before = path.read_bytes()
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space left") as caught:
            ledger.mark(0, [2])
        assert caught.value.errno == errno.ENOSPC
        monkeypatch.undo()
        assert path.read_bytes() == before
        assert not ledger.done(0, 2)
        ledger.mark(0, [3])
    with Ledger(path) as again:
        assert (again.done(0, 1), again.done(0, 2), again.done(0, 3)) == (True, False, True)


def test_differences_are_named_with_both_values() -> None:
    before, now = {"a": 1, "b": [1, 2], "c": None}, {"a": 1, "b": [1, 3], "d": "x"}
    assert differences(before, now) == ["b was [1, 2], is [1, 3]", 'd was null, is "x"']
    assert differences(before, before) == []
