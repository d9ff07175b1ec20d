"""TIFF: one grey section, or a stack of them.  Sizes are read from the tags before anything is decoded."""

from __future__ import annotations

import io
import math
import struct
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from emboundary.service.codecs.errors import MalformedBodyError, UnsupportedImageError, refuse_large
from emboundary.service.errors import InputError

_GREY = (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.MINISWHITE)
_BIG_TIFF = 43
_PAGES_AS_SECTIONS = str.maketrans({"I": "Z", "Q": "Z"})


def decode(body: bytes, limit: int) -> tuple[NDArray[Any], str]:
    """Read a TIFF and its axes, lower case; pages of equal size without further description are sections.

    Raises:
        MalformedBodyError: no TIFF, or one that ends early or is damaged.
        UnsupportedImageError: colour, a palette, or pages of different sizes.
        TooLargeError: more than ``limit`` bytes once decompressed.
    """
    _refuse_broken_chain(body)
    try:
        with tifffile.TiffFile(io.BytesIO(body), _multifile=False) as file:
            series = _only_series(file)
            _refuse_colour(series)
            refuse_large(
                math.prod(series.shape) * np.dtype(series.dtype).itemsize, limit, f"the TIFF of shape {series.shape}"
            )
            _refuse_truncated(series, len(body))
            return np.asarray(series.asarray(maxworkers=1)), series.axes.translate(_PAGES_AS_SECTIONS).lower()
    except InputError:
        raise
    except Exception as error:  # a damaged TIFF fails anywhere inside tifffile or a codec
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise MalformedBodyError(
            f"the TIFF cannot be read ({reason}); it is truncated or damaged: send it whole"
        ) from error


def encode(array: NDArray[Any]) -> bytes:
    """Write an array (y, x) or (z, y, x) as a zlib-compressed TIFF that states its axes."""
    stream = io.BytesIO()
    axes = "ZYX"[-array.ndim :]
    tifffile.imwrite(stream, array, photometric="minisblack", compression="zlib", metadata={"axes": axes})
    return stream.getvalue()


def _refuse_broken_chain(body: bytes) -> None:
    """Follow the chain of pages to its end; tifffile leaves out the pages behind a break without an error."""
    order = {b"II": "<", b"MM": ">"}.get(body[:2])
    if order is None or len(body) < 16:
        raise MalformedBodyError(
            f"the body starts with {body[:4]!r} and is no TIFF; send a TIFF or name the body's own Content-Type"
        )
    big = struct.unpack_from(order + "H", body, 2)[0] == _BIG_TIFF
    count, offset, entry = (order + "Q", order + "Q", 20) if big else (order + "H", order + "I", 12)
    at = struct.unpack_from(offset, body, 8 if big else 4)[0]
    seen: set[int] = set()
    while at:
        try:
            tags = struct.unpack_from(count, body, at)[0]
            seen.add(at)
            at = struct.unpack_from(offset, body, at + struct.calcsize(count) + tags * entry)[0]
        except (struct.error, OverflowError):
            raise MalformedBodyError(
                f"the TIFF of {len(body)} bytes points to a page at byte {at}; it is truncated or damaged"
            ) from None
        if at in seen:
            raise MalformedBodyError(f"the TIFF's pages run in a circle at byte {at}; it is damaged: write it again")


def _only_series(file: tifffile.TiffFile) -> tifffile.TiffPageSeries:
    if len(file.series) != 1:
        shapes = ", ".join(str(s.shape) for s in file.series[:3])
        raise UnsupportedImageError(
            f"the TIFF holds {len(file.series)} images of different kinds ({shapes}); it must hold one image or one "
            "stack of equal sections: split it"
        )
    return file.series[0]


def _refuse_colour(series: tifffile.TiffPageSeries) -> None:
    page = series.keyframe
    if page.photometric not in _GREY or page.samplesperpixel != 1:
        kind = getattr(page.photometric, "name", page.photometric)
        raise UnsupportedImageError(
            f"the TIFF is {kind} with {page.samplesperpixel} samples per pixel; it must be grey with 1 sample: "
            "convert it to one channel"
        )


def _refuse_truncated(series: tifffile.TiffPageSeries, length: int) -> None:
    if series.dataoffset is not None:  # one run of uncompressed values
        end = series.dataoffset + series.nbytes
    else:
        end = 0
        for page in series.pages:
            if page is None:
                raise MalformedBodyError("the TIFF lacks a section that its description promises; send it whole")
            end = max(end, *(o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=True)))
    if end > length:
        raise MalformedBodyError(f"the TIFF ends after {length} bytes, before its last pixels at {end}; send it whole")
