"""Stores for zarr-python that know what their files can stand for, and refuse what is larger.

Without them a chunk's file is read, and decoded, whatever its size, and compared with the chunk's shape at the end.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any, cast

from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype
from zarr.storage import FsspecStore, LocalStore

from emboundary.service.errors import InputError, first_line
from emboundary.service.volumes.bombs import refuse_bomb
from emboundary.service.volumes.bounds import DOCUMENT_BYTES, show_bytes
from emboundary.service.volumes.storage import is_url, missing_package

_OVERHEAD_BYTES = 1 << 16


def open_store(where: str) -> _LocalStore | _RemoteStore:
    """Open the folder of a Zarr array or group for reading.

    Args:
        where: a path, or a URL that fsspec knows.

    Raises:
        InputError: a URL that cannot be opened.
    """
    if not is_url(where):
        return _LocalStore(Path(where))
    try:
        return cast(_RemoteStore, _RemoteStore.from_url(where, read_only=True))
    except ImportError as error:
        raise missing_package(where, error) from error
    except (ValueError, OSError) as error:
        raise InputError(f"{where} cannot be opened: {first_line(error)}") from error


class Bounds:
    """What the files of a store can stand for; until an array is known, they are documents of metadata."""

    def __init__(self) -> None:
        self._file_bytes = self._part_bytes = DOCUMENT_BYTES
        self._decoded_bytes: int | None = None

    def expect(self, file: int, part: int, index: int) -> None:
        """Tell how many bytes a file, a compressed part of it and a shard's index have once they are decoded."""
        # No compressor of use makes them twice as large; the constant is for headers and checksums.
        self._file_bytes = 2 * (file + index) + _OVERHEAD_BYTES
        self._part_bytes = max(2 * part, index) + _OVERHEAD_BYTES
        # Filters may store values in a wider type.
        self._decoded_bytes = 8 * part + _OVERHEAD_BYTES

    def refuse_large(self, key: str, size: int, part: ByteRequest | None) -> None:
        most = self._file_bytes if part is None else self._part_bytes
        if size > most:
            raise ValueError(f"{key} has a part of {show_bytes(size)} that stands for {show_bytes(most)} at most")

    def refuse_bomb(self, content: bytes) -> None:
        if self._decoded_bytes is not None:
            refuse_bomb(content, self._decoded_bytes)


class _LocalStore(LocalStore):
    """A folder of which nothing is read, and nothing handed to a codec, that is larger than what it can stand for."""

    def __init__(self, root: Path, *, read_only: bool = True) -> None:
        super().__init__(root, read_only=read_only)
        self.bounds = Bounds()

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        prototype = prototype or default_buffer_prototype()
        content = await asyncio.to_thread(self._read, key, byte_range)
        return None if content is None else prototype.buffer.from_bytes(content)

    def _read(self, key: str, part: ByteRequest | None) -> bytes | None:
        try:
            with (self.root / key).open("rb") as file:
                start, stop = _extent(part, os.fstat(file.fileno()).st_size)
                self.bounds.refuse_large(key, stop - start, part)
                if start:
                    file.seek(start)
                content = file.read(stop - start)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None
        self.bounds.refuse_bomb(content)
        return content


class _RemoteStore(FsspecStore):
    """A store behind a URL: what a server sends is known once it is there, and looked at before it grows."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.bounds = Bounds()

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        found = await super().get(key, prototype, byte_range)
        if found is not None:
            self.bounds.refuse_large(key, len(found), byte_range)
            await asyncio.to_thread(self.bounds.refuse_bomb, found.to_bytes())
        return found


def _extent(part: ByteRequest | None, size: int) -> tuple[int, int]:
    """First byte and end of a part of a file; what lies behind the file's end is left out."""
    match part:
        case RangeByteRequest():
            start, stop = part.start, min(part.end, size)
        case OffsetByteRequest():
            start, stop = part.offset, size
        case SuffixByteRequest():
            start, stop = max(0, size - part.suffix), size
        case _:
            start, stop = 0, size
    return start, max(start, stop)
