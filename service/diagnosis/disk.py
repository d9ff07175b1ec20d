"""A short test of a folder: what may be done there, how much is free, and how fast the disk below it is."""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

# Large enough to pass the caches of disks by, small enough for any of them.
FILE_BYTES = 32 * 2**20
_BLOCK_BYTES = 2**20
_SPARE = 16


@dataclass(frozen=True)
class Disk:
    """What was found.

    Attributes:
        exists: whether there is such a folder.
        readable: whether its entries can be listed.
        writable: whether a file could be written there.
        error: why not, where it was tried.
        free_bytes: for users without privileges; None where it cannot be known.
        write_bytes_per_second: written and flushed to the disk; None where it was not tried.
        read_bytes_per_second: read again, after the system was asked to forget it; likewise.
    """

    exists: bool
    readable: bool = False
    writable: bool = False
    error: str = ""
    free_bytes: int | None = None
    write_bytes_per_second: float | None = None
    read_bytes_per_second: float | None = None


def look(folder: Path) -> Disk:
    """Look at a folder, and write and read a file there, which is gone afterwards, also after a kill."""
    if not folder.is_dir():
        return Disk(exists=False)
    readable = os.access(folder, os.R_OK | os.X_OK)
    status = os.statvfs(folder)
    free = status.f_bavail * status.f_frsize
    if free < _SPARE * FILE_BYTES:
        writable = os.access(folder, os.W_OK | os.X_OK)
        return Disk(True, readable, writable, "" if writable else "permission denied", free)
    try:
        write, read = _speeds(folder)
    except OSError as error:
        return Disk(True, readable, False, error.strerror or str(error), free)
    return Disk(True, readable, True, "", free, write, read)


def _speeds(folder: Path) -> tuple[float, float]:
    """Bytes per second, written and read; the file has no name, where the system knows such files."""
    blocks = [os.urandom(_BLOCK_BYTES) for _ in range(FILE_BYTES // _BLOCK_BYTES)]
    with tempfile.TemporaryFile(dir=folder, prefix=".emboundary-doctor-", buffering=0) as file:
        began = time.perf_counter()
        for block in blocks:
            file.write(block)
        os.fsync(file.fileno())
        written = time.perf_counter()
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        file.seek(0)
        again = time.perf_counter()
        while file.read(_BLOCK_BYTES):
            pass
        done = time.perf_counter()
    return FILE_BYTES / (written - began), FILE_BYTES / (done - again)
