"""TIFF stacks, of which only the strips or tiles that are asked for are decoded."""

from __future__ import annotations

import logging
import math
import struct
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from emboundary.service.errors import InputError, first_line
from emboundary.service.volumes.source import Key, Source, unchunked
from emboundary.service.volumes.tiff_axes import read_axes

_CACHE_BYTES = 1 << 28
# Compressions whose decoder needs tables that stand outside the segment.
_JPEG = frozenset({6, 7, 33007, 34892})


def open_tiff(path: Path) -> Source:
    """Open a TIFF stack: uncompressed ones are mapped, others decoded strip by strip or tile by tile.

    Raises:
        InputError: a damaged or truncated file, colour, or several images of different shapes.
    """
    with _quiet():
        try:
            file = tifffile.TiffFile(path)
        except (tifffile.TiffFileError, ValueError, struct.error) as error:
            raise InputError(f"{path} cannot be read as TIFF: {error}; copy or export it again") from error
        try:
            return _open_series(path, file)
        except InputError:
            file.close()
            raise
        except Exception as error:  # a damaged directory fails anywhere inside tifffile
            file.close()
            reason = first_line(error)
            raise InputError(f"{path} is a damaged TIFF: {reason}; copy or export it again") from error


def _open_series(path: Path, file: tifffile.TiffFile) -> Source:
    refuse_truncated(str(path), file)
    if len(file.series) != 1:
        shapes = ", ".join(str(series.shape) for series in file.series[:4])
        raise InputError(f"{path} holds {len(file.series)} images of shapes {shapes}; store one stack per file")
    series = file.series[0]
    photometric = series.keyframe.photometric
    if photometric not in (None, tifffile.PHOTOMETRIC.MINISBLACK) or "S" in series.axes:
        raise InputError(
            f"{path} stores its voxels as {getattr(photometric, 'name', photometric)} with axes {series.axes}; they "
            "must be single grey values (MINISBLACK): convert it"
        )
    if series.is_multifile:
        raise InputError(f"{path} is one of several files of a stack; store the stack in one file")
    axes = read_axes(file, series)
    if series.dataoffset is not None:
        dtype = series.dtype.newbyteorder(file.byteorder)
        mapped = np.memmap(path, dtype=dtype, mode="r", offset=series.dataoffset, shape=series.shape)
        return Source(str(path), mapped, unchunked(mapped.shape), axes, file.close)
    segments = _Segments(path, series)
    return Source(str(path), segments, (1,) * (len(series.shape) - 2) + segments.segment, axes, file.close)


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


class _Segments:
    """A series of pages as an array; strips or tiles are decoded as they are needed, the last ones are kept."""

    def __init__(self, path: Path, series: tifffile.TiffPageSeries) -> None:
        self.shape: tuple[int, ...] = tuple(series.shape)
        self.dtype: np.dtype[Any] = series.dtype
        keyframe = series.keyframe
        self.segment: tuple[int, int] = keyframe.chunks[0], keyframe.chunks[1]
        self._across = keyframe.chunked[1]
        self._keyframe = keyframe
        self._pages = [page for page in series.pages if page is not None]
        if len(self._pages) != math.prod(self.shape[:-2]):
            raise InputError(f"{path} has {len(self._pages)} pages for a stack of shape {self.shape}; export it again")
        self._number = np.arange(len(self._pages)).reshape(self.shape[:-2])
        self._handle = keyframe.parent.filehandle
        self._kept: OrderedDict[tuple[int, int], NDArray[Any]] = OrderedDict()
        self._kept_bytes = 0
        self._lock = threading.Lock()

    def __getitem__(self, key: Key) -> NDArray[Any]:
        rows, columns = (_range(part, n) for part, n in zip(key[-2:], self.shape[-2:], strict=True))
        numbers = self._number[key[:-2]]
        out = np.empty((numbers.size, len(rows), len(columns)), dtype=self.dtype)
        with self._lock:
            for image, number in zip(out, numbers.flat, strict=True):
                self._fill(image, int(number), rows, columns)
        return out.reshape(*numbers.shape, len(rows), len(columns))

    def _fill(self, out: NDArray[Any], number: int, rows: range, columns: range) -> None:
        high, wide = self.segment
        for i in range(rows.start // high, -(-rows.stop // high)):
            for j in range(columns.start // wide, -(-columns.stop // wide)):
                part = self._decoded(number, i * self._across + j)
                top, left = max(rows.start, i * high), max(columns.start, j * wide)
                bottom = min(rows.stop, i * high + part.shape[0])
                right = min(columns.stop, j * wide + part.shape[1])
                out[top - rows.start : bottom - rows.start, left - columns.start : right - columns.start] = part[
                    top - i * high : bottom - i * high, left - j * wide : right - j * wide
                ]

    def _decoded(self, number: int, index: int) -> NDArray[Any]:
        kept = self._kept.get((number, index))
        if kept is not None:
            self._kept.move_to_end((number, index))
            return kept
        page = self._pages[number]
        count = page.databytecounts[index]
        self._handle.seek(page.dataoffsets[index])
        data = self._handle.read(count) if count else None
        tables = {"jpegtables": page.jpegtables} if self._keyframe.compression in _JPEG else {}
        decoded, _, shape = self._keyframe.decode(data, index, **tables)
        # A segment that was never written stands for zeros.
        part = np.zeros(shape[1:3], self.dtype) if decoded is None else decoded.reshape(decoded.shape[1:3])
        self._kept[number, index] = part
        self._kept_bytes += part.nbytes
        while self._kept_bytes > _CACHE_BYTES and len(self._kept) > 1:
            self._kept_bytes -= self._kept.popitem(last=False)[1].nbytes
        return part


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
