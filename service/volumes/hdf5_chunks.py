"""Chunks of an HDF5 dataset, decoded here: libhdf5 neither checks what a chunk decodes to nor that it holds anything.

A chunk whose index says 0 bytes, or whose stream is too short, makes libhdf5 read beyond its buffers: a crash, or
voxels that are whatever lay in memory.  Decoding here also runs in parallel, which libhdf5 does not.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Sequence
from typing import Any

import h5py
import numcodecs
import numpy as np
from numpy.typing import NDArray

from emboundary.service.volumes.source import Key

_KNOWN = frozenset({h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32})
_CHECKSUM_BYTES = 4
_OVERHEAD_BYTES = 1 << 16
# The largest level of deflate.
_DEEPEST = 9


class Chunked:
    """A chunked dataset as an array; other filters than those of HDF5 itself are left to libhdf5.

    Raises:
        ValueError: a filter with parameters that cannot be.
    """

    def __init__(self, dataset: h5py.Dataset) -> None:
        self.shape: tuple[int, ...] = dataset.shape
        self.dtype: np.dtype[Any] = dataset.dtype
        self.chunks: tuple[int, ...] = dataset.chunks
        self._dataset = dataset
        plist = dataset.id.get_create_plist()
        filters = [plist.get_filter(index) for index in range(plist.get_nfilters())]
        self._filters = [number for number, *_ in filters]
        for number, _, values, _ in filters:
            if (number == h5py.h5z.FILTER_SHUFFLE and values != (self.dtype.itemsize,)) or (
                number == h5py.h5z.FILTER_DEFLATE and not (len(values) == 1 and values[0] <= _DEEPEST)
            ):
                raise ValueError(f"filter {number} has parameters {values}")
        # Types of an unusual number of bits must be converted, which is libhdf5's work.
        plain = dataset.id.get_type().equal(h5py.h5t.py_create(self.dtype))
        self._known = plain and _KNOWN.issuperset(self._filters)
        self._bytes = math.prod(self.chunks) * self.dtype.itemsize

    def __getitem__(self, key: Key) -> NDArray[Any]:
        ranges = [
            range(part, part + 1) if isinstance(part, int) else range(*part.indices(extent))
            for part, extent in zip(key, self.shape, strict=True)
        ]
        out = np.empty([len(part) for part in ranges], self.dtype)
        grid = [
            range(part.start // extent * extent, part.stop, extent) if part else range(0)
            for part, extent in zip(ranges, self.chunks, strict=True)
        ]
        for place in itertools.product(*grid):
            inside, outside = [], []
            for first, extent, part in zip(place, self.chunks, ranges, strict=True):
                start, stop = max(first, part.start), min(first + extent, part.stop)
                inside.append(slice(start - first, stop - first))
                outside.append(slice(start - part.start, stop - part.start))
            chunk = self._chunk(place)
            out[tuple(outside)] = self._dataset.fillvalue if chunk is None else chunk[tuple(inside)]
        return out[tuple(0 if isinstance(part, int) else slice(None) for part in key)]

    def _chunk(self, place: Sequence[int]) -> NDArray[Any] | None:
        """Decode one chunk; None where it was never written.

        Raises:
            ValueError: its bytes are not those of a chunk.
        """
        info = self._dataset.id.get_chunk_info_by_coord(tuple(place))
        if info.byte_offset is None:
            return None
        # Without filters libhdf5 takes the size from the shape, wherever that leads.
        if not 0 < info.size <= 2 * self._bytes + _OVERHEAD_BYTES or (not self._filters and info.size != self._bytes):
            raise ValueError(f"the chunk at {tuple(place)} has {info.size} bytes for {self._bytes} decoded ones")
        if not self._known:
            return np.asarray(self._dataset[tuple(map(slice, place, map(sum, zip(place, self.chunks, strict=True))))])
        mask, content = self._dataset.id.read_direct_chunk(tuple(place))
        for index in reversed(range(len(self._filters))):
            if not mask >> index & 1:
                content = self._undone(self._filters[index], content)
        if len(content) != self._bytes:
            raise ValueError(f"the chunk at {tuple(place)} decodes to {len(content)} bytes, not to {self._bytes}")
        return np.frombuffer(content, self.dtype).reshape(self.chunks)

    def _undone(self, number: int, content: bytes) -> Any:
        if number == h5py.h5z.FILTER_DEFLATE:
            stream = zlib.decompressobj()
            decoded = stream.decompress(content, self._bytes + _CHECKSUM_BYTES)
            if not stream.eof:
                raise ValueError("a stream of deflate that does not end where it should")
            return decoded
        if number == h5py.h5z.FILTER_FLETCHER32:
            return numcodecs.Fletcher32().decode(content)
        width = self.dtype.itemsize
        whole = len(content) // width * width
        shuffled = np.frombuffer(content, np.uint8, whole).reshape(width, -1)
        return shuffled.T.tobytes() + bytes(content[whole:])
