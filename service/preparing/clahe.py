"""Contrast-limited adaptive histogram equalisation (CLAHE) of whole sections, by OpenCV.

For sections that are stained or lit unevenly (Zuiderveld 1994, "Contrast limited adaptive histogram equalization").
Tiles of about 128 pixels and a slope of at most 3 are what EM groups use, after the defaults of Fiji's "Enhance Local
Contrast".  The tiles' histograms reach across the section, and its grid has a preferred direction: a section is
equalised whole, and the map of a turned section is no longer exactly the turned map (law 2).
"""

from __future__ import annotations

import importlib
import math
import threading
from collections import OrderedDict
from concurrent.futures import Future
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from emboundary.model.geometry import Readable, Triple
from emboundary.service.errors import UsageError
from emboundary.service.preparing.fill import fill_mask, fill_value
from emboundary.service.volumes.axes import SpaceAxes

# A section needs up to four times its size while it is equalised.
_SECTION_BYTES = 1 << 28
_KEPT_BYTES = 1 << 30


class Stored(Readable, Protocol):
    """A volume as it lies on disk."""

    where: str
    dtype: np.dtype[Any]
    axes: SpaceAxes
    chunks: Triple


class Clahe:
    """A volume whose sections are equalised when they are read; fill stays what it is.

    Sections are equalised in slabs of as many as lie in one layer of chunks, or fit into memory, and kept for the
    next read up to 1 GiB.  Reads from several threads share them.

    Attributes:
        where: what the user called the volume.
        shape: (z, y, x) in voxels.
        dtype: uint8 or uint16.
        axes: the volume's.
        chunks: (z, y, x) of what is equalised at once.
        fill_value: the value that stands for no data.
    """

    def __init__(self, volume: Stored, clip_limit: float = 3.0, tile: int = 128) -> None:
        """Raises UsageError: OpenCV is missing, or the volume's type or size does not fit."""
        z, y, x = volume.shape
        if volume.dtype not in (np.dtype(np.uint8), np.dtype(np.uint16)):
            raise UsageError(
                f"clahe works on uint8 and uint16, {volume.where} is {volume.dtype}; convert it, or leave --clahe out"
            )
        size = y * x * volume.dtype.itemsize
        if size > _SECTION_BYTES:
            raise UsageError(
                f"clahe needs whole sections in memory: those of {volume.where} have {size} bytes, at most "
                f"{_SECTION_BYTES} are accepted; leave --clahe out, or equalise the volume beforehand"
            )
        if not (math.isfinite(clip_limit) and clip_limit > 0 and tile >= 8):
            raise UsageError(
                f"clahe has clip limit {clip_limit:g} and tiles of {tile} pixels; the limit must be above 0 and a tile "
                "at least 8 pixels: give others, e.g. 3 and 128"
            )
        self._volume = volume
        self._cv2 = _load_opencv()
        self._clip_limit = clip_limit
        self._tiles = (max(1, round(y / tile)), max(1, round(x / tile)))
        self._slabs = _Slabs(_KEPT_BYTES)
        self.where = volume.where
        self.shape: Triple = (z, y, x)
        self.dtype = volume.dtype
        self.axes = volume.axes
        self.chunks: Triple = (max(1, min(volume.chunks[0], z, _SECTION_BYTES // size)), y, x)
        self.fill_value = fill_value(volume)

    def parameters(self) -> dict[str, Any]:
        """Everything that decides about the values: JSON values."""
        return {
            "library": f"opencv {self._cv2.__version__}",
            "clip_limit": self._clip_limit,
            "tiles_y_x": list(self._tiles),
        }

    def __getitem__(self, key: tuple[slice, slice, slice], /) -> NDArray[Any]:
        """Read a box; ``key`` is one slice each for z, y and x, with steps of 1.

        Raises:
            InputError: what the volume raises.
        """
        z0, z1, _ = key[0].indices(self.shape[0])
        y0, y1, _ = key[1].indices(self.shape[1])
        x0, x1, _ = key[2].indices(self.shape[2])
        result = np.empty((z1 - z0, y1 - y0, x1 - x0), self.dtype)
        z = z0
        while z < z1:
            start, stop = self._slab(z)
            slab = self._slabs.get(start, lambda a=start, b=stop: self._equalised(a, b))
            end = min(stop, z1)
            result[z - z0 : end - z0] = slab[z - start : end - start, y0:y1, x0:x1]
            z = end
        return result

    def _slab(self, z: int) -> tuple[int, int]:
        """First and last + 1 section of the slab that holds section ``z``; slabs do not cross chunks."""
        layer = z // self._volume.chunks[0] * self._volume.chunks[0]
        start = layer + (z - layer) // self.chunks[0] * self.chunks[0]
        return start, min(start + self.chunks[0], layer + self._volume.chunks[0], self.shape[0])

    def _equalised(self, start: int, stop: int) -> NDArray[Any]:
        everything = slice(None)
        slab = np.asarray(self._volume[start:stop, everything, everything])
        result = np.empty_like(slab)
        equaliser = self._cv2.createCLAHE(self._clip_limit, self._tiles[::-1])  # one is not for several threads
        for section, equalised in zip(slab, result, strict=True):
            equaliser.apply(np.ascontiguousarray(section), equalised)
            fill = fill_mask(section[None], self.fill_value)
            if fill is not None:
                equalised[fill[0]] = self.fill_value
        return result


class _Slabs:
    """The slabs used last, up to a number of bytes; one that is asked for twice at once is made once."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._kept: OrderedDict[int, Future[NDArray[Any]]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, start: int, make: Any) -> NDArray[Any]:
        with self._lock:
            slab = self._kept.get(start)
            mine = slab is None
            if slab is None:
                slab = self._kept[start] = Future()
            self._kept.move_to_end(start)
        if mine:
            try:
                slab.set_result(make())
            except BaseException as error:
                with self._lock:  # the next one may try again
                    del self._kept[start]
                slab.set_exception(error)
            else:
                self._forget()
        return slab.result()

    def _forget(self) -> None:
        """Drop the slabs that were not used for longest."""
        with self._lock:
            made = [(start, slab.result().nbytes) for start, slab in self._kept.items() if slab.done()]
            surplus = sum(size for _, size in made) - self._most_bytes
            for start, size in made[:-1]:
                if surplus <= 0:
                    break
                del self._kept[start]
                surplus -= size


def _load_opencv() -> Any:
    """OpenCV, on one thread: the tiles that are being computed have the others.

    Raises:
        UsageError: it is not installed.
    """
    try:
        cv2 = importlib.import_module("cv2")
    except ImportError:
        raise UsageError(
            "clahe needs OpenCV, which is not installed; pip install 'emboundary[clahe]', or leave --clahe out"
        ) from None
    cv2.setNumThreads(1)
    return cv2
