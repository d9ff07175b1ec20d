"""TIFF stacks, of which only the strips or tiles that are asked for are decoded."""

from __future__ import annotations

import logging
import math
import os
import struct
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, BinaryIO

import numpy as np
import tifffile
from numpy.typing import NDArray

from emboundary.service.errors import InputError, first_line
from emboundary.service.volumes.source import Key, Source, unchunked
from emboundary.service.volumes.tiff_axes import read_axes
from emboundary.service.volumes.tiff_images import refuse_large_image

_CACHE_BYTES = 1 << 28
# Reading this much of a row in vain is faster than asking for every row alone.
_READ_OVER_BYTES = 1 << 14
# Compressions whose decoder needs tables that stand outside the segment.
_JPEG = frozenset({6, 7, 33007, 34892})


def open_tiff(where: str, opened: BinaryIO, state: Mapping[str, Any], kept_bytes: int | None = None) -> Source:
    """Open a TIFF stack; of uncompressed ones any part can be read, others are decoded strip by strip or tile by tile.

    Args:
        where: what the user called it, for messages.
        opened: the file, which is closed with the source.
        state: what changes when the file changes.
        kept_bytes: how many bytes of decoded parts are kept for the next read.

    Raises:
        InputError: a damaged or truncated file, colour, or several images of different shapes.
    """
    with _quiet(), ExitStack() as stack:
        stack.callback(opened.close)
        try:
            opened.seek(0)
            file = tifffile.TiffFile(opened, _multifile=False)
            stack.callback(file.close)
            source = _open_series(where, file, state, _CACHE_BYTES if kept_bytes is None else kept_bytes)
        except InputError:
            raise
        except (tifffile.TiffFileError, ValueError, struct.error) as error:
            raise InputError(f"{where} cannot be read as TIFF: {first_line(error)}; copy or export it again") from error
        except Exception as error:  # a damaged directory fails anywhere inside tifffile
            raise InputError(f"{where} is a damaged TIFF: {first_line(error)}; copy or export it again") from error
        return replace(source, close=stack.pop_all().close)


def _open_series(where: str, file: tifffile.TiffFile, state: Mapping[str, Any], kept_bytes: int) -> Source:
    refuse_truncated(where, file)
    if len(file.series) != 1:
        shapes = ", ".join(str(series.shape) for series in file.series[:4])
        raise InputError(f"{where} holds {len(file.series)} images of shapes {shapes}; store one stack per file")
    series = file.series[0]
    photometric = series.keyframe.photometric
    if photometric not in (None, tifffile.PHOTOMETRIC.MINISBLACK) or "S" in series.axes:
        raise InputError(
            f"{where} stores its voxels as {getattr(photometric, 'name', photometric)} with axes {series.axes}; they "
            "must be single grey values (MINISBLACK): convert it"
        )
    if series.is_multifile:
        raise InputError(f"{where} is one of several files of a stack; store the stack in one file")
    axes = read_axes(file, series)
    bytes_of = _Bytes(file.filehandle)
    if series.dataoffset is not None:
        piece = _Piece(bytes_of, series.shape, series.dtype.newbyteorder(file.byteorder), series.dataoffset)
        return Source(where, piece, unchunked(piece.shape), axes, state=state)
    segments = _Segments(where, series, bytes_of, kept_bytes)
    chunks = (1,) * (len(series.shape) - 2) + segments.segment
    return Source(where, segments, chunks, axes, decoded=chunks, state=state)


def refuse_truncated(where: str, file: tifffile.TiffFile) -> None:
    """Refuse a TIFF whose chain of pages breaks off or runs in a circle, or whose voxels lie beyond its end.

    tifffile itself leaves out, without an error, the pages behind a break.

    Raises:
        InputError: names ``where`` and what is missing.
    """
    last = file.pages[len(file.pages) - 1]
    form = file.tiff
    handle = file.filehandle
    size = handle.size
    handle.seek(last.offset)
    (tags,) = struct.unpack(form.tagnoformat, handle.read(form.tagnosize))
    handle.seek(last.offset + form.tagnosize + tags * form.tagsize)
    (following,) = struct.unpack(form.offsetformat, handle.read(form.offsetsize))
    ends = [
        offset + count
        for page in file.pages
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)
    ]
    if following != 0 or max(ends, default=0) > size:
        raise InputError(
            f"{where} is truncated: it ends after {size} bytes, before the last of its pages; copy it again"
        )
    for series in file.series:
        if series.dataoffset is not None and series.dataoffset + series.nbytes > size:
            raise InputError(
                f"{where} is truncated: it has {size} bytes, its stack ends at {series.dataoffset + series.nbytes}"
            )


class _Bytes:
    """Parts of an open file, for several threads at once."""

    def __init__(self, handle: tifffile.FileHandle) -> None:
        self._handle = handle
        self._lock = threading.Lock()
        try:
            self._number: int | None = handle.fileno()
        except (OSError, ValueError, AttributeError):  # remote, or in memory
            self._number = None

    def read(self, offset: int, count: int) -> bytes:
        """Exactly ``count`` bytes; memory is taken for what is there, not for what was asked.

        Raises:
            EOFError: the file ends before.
        """
        if self._number is not None:
            content = os.pread(self._number, count, offset)
        else:
            with self._lock:
                self._handle.seek(offset)
                content = self._handle.read(count)
        if len(content) != count:
            raise EOFError(f"the file ends {count - len(content)} bytes before the end of a part at byte {offset}")
        return content

    def read_into(self, target: NDArray[Any], offset: int) -> None:
        """Fill a contiguous array.

        Raises:
            EOFError: the file ends before.
        """
        assert target.flags.c_contiguous  # or the bytes would fill a copy
        view = target.reshape(-1).view(np.uint8).data
        if self._number is None:
            view[:] = self.read(offset, len(view))
            return
        while len(view):
            got = os.preadv(self._number, [view], offset)  # at most 2 GiB
            if not got:
                raise EOFError(f"the file ends {len(view)} bytes before the end of a part at byte {offset}")
            view, offset = view[got:], offset + got


class _Piece:
    """A stack stored uncompressed and in one piece.  It is read, not mapped: a failing disk would kill the process."""

    def __init__(self, file: _Bytes, shape: tuple[int, ...], dtype: np.dtype[Any], offset: int) -> None:
        self.shape = tuple(shape)
        self.dtype = dtype
        self._file = file
        self._offset = offset
        self._number = _Numbers(self.shape[:-2])

    def __getitem__(self, key: Key) -> NDArray[Any]:
        rows, columns = (_range(part, n) for part, n in zip(key[-2:], self.shape[-2:], strict=True))
        numbers, outer = self._number[key[:-2]]
        out = np.empty((len(numbers), len(rows), len(columns)), dtype=self.dtype)
        wide = self.shape[-1]
        if not out.size:
            return out.reshape(*outer, len(rows), len(columns))
        if len(columns) == wide:
            for image, number in zip(out, numbers, strict=True):
                self._file.read_into(image, self._place(number, rows.start, 0))
        elif (wide - len(columns)) * self.dtype.itemsize <= _READ_OVER_BYTES:
            whole = np.empty((len(rows), wide), self.dtype)
            for image, number in zip(out, numbers, strict=True):
                self._file.read_into(whole, self._place(number, rows.start, 0))
                image[...] = whole[:, columns.start : columns.stop]
        else:
            for image, number in zip(out, numbers, strict=True):
                for target, row in zip(image, rows, strict=True):
                    self._file.read_into(target, self._place(number, row, columns.start))
        return out.reshape(*outer, len(rows), len(columns))

    def _place(self, number: int, row: int, column: int) -> int:
        high, wide = self.shape[-2:]
        return self._offset + ((number * high + row) * wide + column) * self.dtype.itemsize


class _Numbers:
    """Numbers of the pages behind the outer axes of a stack; nothing is laid out for them, however many there are."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape = shape

    def __getitem__(self, key: Key) -> tuple[list[int], tuple[int, ...]]:
        """The pages of ``key`` in order, and the shape they have among them."""
        ranges = [_range(part, n) for part, n in zip(key, self._shape, strict=True)]
        numbers = [0]
        for extent, part in zip(self._shape, ranges, strict=True):
            numbers = [number * extent + index for number in numbers for index in part]
        return numbers, tuple(len(r) for r, part in zip(ranges, key, strict=True) if not isinstance(part, int))


class _Segments:
    """A series of pages as an array; strips or tiles are decoded as they are needed, the last ones are kept."""

    def __init__(self, where: str, series: tifffile.TiffPageSeries, file: _Bytes, kept_bytes: int) -> None:
        self.shape: tuple[int, ...] = tuple(series.shape)
        self.dtype: np.dtype[Any] = series.dtype
        keyframe = series.keyframe
        self.segment: tuple[int, int] = keyframe.chunks[0], keyframe.chunks[1]
        self._across = keyframe.chunked[1]
        self._keyframe = keyframe
        self._pages = [page for page in series.pages if page is not None]
        if len(self._pages) != math.prod(self.shape[:-2]):
            raise InputError(f"{where} has {len(self._pages)} pages for a stack of shape {self.shape}; export it again")
        parts = math.prod(keyframe.chunked)
        if any(len(page.dataoffsets) != parts or len(page.databytecounts) != parts for page in self._pages):
            raise InputError(f"{where} has a page without all of its {parts} strips or tiles; export it again")
        self._number = _Numbers(self.shape[:-2])
        self._file = file
        self._kept: OrderedDict[tuple[int, int], NDArray[Any]] = OrderedDict()
        self._kept_bytes = 0
        self._most_bytes = kept_bytes
        self._lock = threading.Lock()

    def __getitem__(self, key: Key) -> NDArray[Any]:
        rows, columns = (_range(part, n) for part, n in zip(key[-2:], self.shape[-2:], strict=True))
        numbers, outer = self._number[key[:-2]]
        out = np.empty((len(numbers), len(rows), len(columns)), dtype=self.dtype)
        for image, number in zip(out, numbers, strict=True):
            self._fill(image, number, rows, columns)
        return out.reshape(*outer, len(rows), len(columns))

    def _fill(self, out: NDArray[Any], number: int, rows: range, columns: range) -> None:
        high, wide = self.segment
        for i in range(rows.start // high, -(-rows.stop // high)):
            for j in range(columns.start // wide, -(-columns.stop // wide)):
                part = self._decoded(number, i * self._across + j)
                top, left = max(rows.start, i * high), max(columns.start, j * wide)
                bottom, right = min(rows.stop, (i + 1) * high), min(columns.stop, (j + 1) * wide)
                # A part that is too small fails here: nothing of the answer is left unwritten.
                out[top - rows.start : bottom - rows.start, left - columns.start : right - columns.start] = part[
                    top - i * high : bottom - i * high, left - j * wide : right - j * wide
                ]

    def _decoded(self, number: int, index: int) -> NDArray[Any]:
        with self._lock:
            kept = self._kept.get((number, index))
            if kept is not None:
                self._kept.move_to_end((number, index))
                return kept
        part = self._decode(number, index)  # without the lock: decoders run in parallel
        with self._lock:
            if (number, index) not in self._kept:
                self._kept[number, index] = part
                self._kept_bytes += part.nbytes
            while self._kept_bytes > self._most_bytes and len(self._kept) > 1:
                self._kept_bytes -= self._kept.popitem(last=False)[1].nbytes
        return part

    def _decode(self, number: int, index: int) -> NDArray[Any]:
        page = self._pages[number]
        count = page.databytecounts[index]
        data = self._file.read(page.dataoffsets[index], count) if count else None
        if data is not None:
            refuse_large_image(self._keyframe.compression, data, self.dtype.itemsize)
        tables = {"jpegtables": page.jpegtables} if self._keyframe.compression in _JPEG else {}
        decoded, _, shape = self._keyframe.decode(data, index, **tables)
        # A segment that was never written stands for zeros.
        return np.zeros(shape[1:3], self.dtype) if decoded is None else decoded.reshape(decoded.shape[1:3])


def _range(part: slice | int, extent: int) -> range:
    return range(part, part + 1) if isinstance(part, int) else range(*part.indices(extent))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep tifffile's log lines off the user's terminal while a file is opened: we raise what matters."""
    logger = logging.getLogger("tifffile")
    before = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = before
