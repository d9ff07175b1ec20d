"""Which other libraries a shared library asks the loader for."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

# ELF-64, little-endian; see elf(5).
_MAGIC = b"\x7fELF\x02\x01"
_LOAD, _DYNAMIC = 1, 2  # p_type
_END, _NEEDED, _STRINGS = 0, 1, 5  # d_tag


def needed(library: Path) -> tuple[str, ...]:
    """Names in the library's own list (``DT_NEEDED``), in its order; empty for a file of another format.

    Raises:
        OSError: a file that cannot be read.
    """
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[: len(_MAGIC)] != _MAGIC:
            return ()
        (table,) = struct.unpack_from("<Q", data, 0x20)
        size, count = struct.unpack_from("<HH", data, 0x36)
        loads: list[tuple[int, int, int]] = []
        entries: list[tuple[int, int]] = []
        for header in range(table, table + size * count, size):
            kind, _, offset, address, _, length = struct.unpack_from("<IIQQQQ", data, header)
            if kind == _LOAD:
                loads.append((address, length, offset))
            elif kind == _DYNAMIC:
                entries = list(struct.iter_unpack("<qQ", data[offset : offset + length // 16 * 16]))
        strings = next((value for tag, value in entries if tag == _STRINGS), 0)
        start = next((strings - a + o for a, length, o in loads if a <= strings < a + length), None)
        if start is None:
            return ()
        names = []
        for tag, value in entries:
            if tag == _END:
                break
            if tag == _NEEDED:
                end = data.find(b"\0", start + value)
                names.append(data[start + value : end].decode())
        return tuple(names)
