"""What a run has done so far, kept beside its unfinished output, so that the same run can go on after any end.

One JSON object per line.  The first line, written once, says which run it is: its fingerprint, and what was found
out before the first block (such as the measured intensity).  Each further line names blocks whose bytes are safe.
A line that a kill cut short is dropped; nothing is ever rewritten.

    {"format": 1, "fingerprint": {...}, "facts": {...}}
    {"level": 0, "done": [0, 1, 2]}
    {"level": 0, "missing": 7, "box": "0:16,0:896,896:1792", "reason": "..."}
    {"level": 0, "filled": 7, "box": "0:16,0:896,896:1792", "reason": "...", "value": 0.0}
"""

from __future__ import annotations

import errno
import json
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from emboundary.service.errors import OutputError

_FORMAT = 1


@dataclass(frozen=True)
class Header:
    """Which run a ledger belongs to.

    Attributes:
        fingerprint: everything that decides about the output's bytes; JSON values.
        facts: what was found out before the first block; JSON values.
    """

    fingerprint: dict[str, Any]
    facts: dict[str, Any]


def read_header(path: Path) -> Header | None:
    """The first line of a ledger; None where there is none, or a kill cut it short.

    Raises:
        OutputError: a ledger of a later version.
    """
    try:
        with path.open("rb") as file:
            line = file.readline()
    except FileNotFoundError:
        return None
    if not line.endswith(b"\n"):
        return None
    try:
        found = json.loads(line)
        if found["format"] != _FORMAT:
            raise OutputError(
                f"{path} has format {found['format']}, this version knows {_FORMAT}: go on with the version of "
                "emboundary that began it, or give --overwrite to start over"
            )
        return Header(found["fingerprint"], found["facts"])
    except (ValueError, KeyError, TypeError):
        raise OutputError(f"{path} is damaged; give --overwrite to start over") from None


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """The parts in which two fingerprints differ, in words."""
    return [
        f"{key} was {json.dumps(before.get(key))}, is {json.dumps(now.get(key))}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]


class Ledger:
    """The blocks of a run that are done, on disk and in memory.

    Attributes:
        filled: the blocks that could not be made and were given a value instead, as their lines say.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._done: dict[int, NDArray[np.uint8]] = {}  # one bit per block
        self._count: dict[int, int] = {}
        self.filled: list[dict[str, Any]] = []
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        try:
            self._replay()
        except BaseException:
            self.close()
            raise

    @classmethod
    def begin(cls, path: Path, header: Header) -> Ledger:
        """Write a new ledger; it exists under its name only when its first line is whole and safe.

        Raises:
            OSError: the file system refuses.
        """
        line = {"format": _FORMAT, "fingerprint": header.fingerprint, "facts": header.facts}
        draft = path.with_name(path.name + ".new")
        with draft.open("wb") as file:
            file.write(json.dumps(line).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        return cls(path)

    def done(self, level: int, number: int) -> bool:
        """Whether a block's bytes are safe."""
        bits = self._done.get(level)
        return bits is not None and number >> 3 < bits.size and bool(bits[number >> 3] >> (number & 7) & 1)

    def count(self, level: int = 0) -> int:
        """Blocks of a level that are done."""
        return self._count.get(level, 0)

    def mark(self, level: int, numbers: list[int]) -> None:
        """Record blocks whose bytes are safe; returns when the record is safe too.

        Raises:
            OSError: the file system refuses.
        """
        if numbers:
            self._append({"level": level, "done": numbers})
            self._set(level, numbers)

    def note_missing(self, level: int, number: int, box: str, reason: str) -> None:
        """Record a block that cannot be made; a later run tries it again.

        Raises:
            OSError: the file system refuses.
        """
        self._append({"level": level, "missing": number, "box": box, "reason": reason})

    def note_filled(self, level: int, number: int, box: str, reason: str, value: float) -> None:
        """Record a block that could not be made and holds a value that the user chose; it counts as done.

        Raises:
            OSError: the file system refuses.
        """
        line = {"level": level, "filled": number, "box": box, "reason": reason, "value": value}
        self._append(line)
        self._take(line)

    def close(self) -> None:
        """Let go of the file; safe to repeat."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _append(self, line: dict[str, Any]) -> None:
        data = json.dumps(line).encode() + b"\n"
        size = os.fstat(self._file).st_size
        try:
            if os.write(self._file, data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fdatasync(self._file)
        except OSError:
            os.ftruncate(self._file, size)  # half a line would hide the ones behind it
            raise

    def _replay(self) -> None:
        """Read what is done; cut off a last line that a kill left unfinished."""
        with self._path.open("rb") as file:
            end = len(file.readline())
            for line in file:
                if not line.endswith(b"\n"):
                    break
                try:
                    self._take(json.loads(line))
                except (ValueError, KeyError, TypeError):
                    raise OutputError(
                        f"{self._path} is damaged at byte {end}; give --overwrite to start over"
                    ) from None
                end += len(line)
        os.ftruncate(self._file, end)

    def _take(self, line: dict[str, Any]) -> None:
        self._set(line["level"], line.get("done", []))
        if "filled" in line:
            self._set(line["level"], [line["filled"]])
            self.filled.append({key: line[key] for key in ("box", "reason", "value")})

    def _set(self, level: int, numbers: list[int]) -> None:
        bits = self._done.get(level, np.zeros(1 << 10, np.uint8))
        for number in numbers:
            if number >> 3 >= bits.size:
                bits = np.concatenate([bits, np.zeros(max(bits.size, (number >> 3) + 1 - bits.size), np.uint8)])
            fresh = not bits[number >> 3] >> (number & 7) & 1
            bits[number >> 3] |= np.uint8(1 << (number & 7))
            self._count[level] = self._count.get(level, 0) + fresh
        self._done[level] = bits
