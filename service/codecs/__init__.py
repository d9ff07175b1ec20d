"""Images as HTTP bodies: bytes to arrays and back, for the three content types that the service speaks.

Every decoder reads the header first and refuses what would not fit, before anything is decompressed.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emboundary.service.codecs import npy, png, tiff
from emboundary.service.codecs.errors import MalformedBodyError, UnsupportedImageError


class MediaType(StrEnum):
    """Content types of images, in the order of preference where a client takes several alike."""

    NPY = "application/x-npy"
    TIFF = "image/tiff"
    PNG = "image/png"


_DECODERS: dict[MediaType, Callable[[bytes, int], tuple[NDArray[Any], str]]] = {
    MediaType.NPY: npy.decode,
    MediaType.TIFF: tiff.decode,
    MediaType.PNG: png.decode,
}
_ENCODERS: dict[MediaType, Callable[[NDArray[Any]], bytes]] = {
    MediaType.NPY: npy.encode,
    MediaType.TIFF: tiff.encode,
    MediaType.PNG: png.encode,
}
_INTEGERS = (np.uint8, np.uint16, np.uint32, np.uint64, np.int8, np.int16, np.int32, np.int64)
_DTYPES = frozenset(np.dtype(t) for t in (*_INTEGERS, np.float16, np.float32, np.float64))


def decode(body: bytes, media: MediaType, *, limit: int, axes: str | None = None) -> NDArray[Any]:
    """Read one grey image (y, x) or stack of sections (z, y, x), in native byte order.

    Args:
        body: the bytes as received, not compressed for transport.
        media: what they are.
        limit: largest size in bytes once decompressed.
        axes: ``yx`` or ``zyx``: what the dimensions are, where the body does not say or says otherwise.

    Raises:
        MalformedBodyError: bytes that are not what ``media`` says: empty, truncated or damaged.
        UnsupportedImageError: colour, other dimensions, an empty axis, or values other than integers and floats
            of at most 64 bit.
        TooLargeError: more than ``limit`` bytes once decompressed.
    """
    if not body:
        raise MalformedBodyError(f"the body is empty (0 bytes); send an image as {media}")
    array, found = _DECODERS[media](body, limit)
    _refuse_other_axes(array, found, axes)
    if array.dtype.newbyteorder("=") not in _DTYPES:
        raise UnsupportedImageError(
            f"the image holds {array.dtype} values; they must be integers or floats of at most 64 bit: convert it"
        )
    if 0 in array.shape:
        raise UnsupportedImageError(f"the image has shape {array.shape}; every axis must have at least 1 voxel")
    return array.astype(array.dtype.newbyteorder("="), order="C", copy=False)


def encode(array: NDArray[Any], media: MediaType) -> bytes:
    """Write an array (y, x) or (z, y, x) in the type that was asked for.

    Raises:
        UnsupportedImageError: a PNG of several sections, or of other values than uint8.
    """
    return _ENCODERS[media](array)


def refuse_unstorable(shape: tuple[int, ...], dtype: np.dtype[Any], media: MediaType) -> None:
    """Refuse, before it is computed, an answer that ``encode`` could not write.

    Raises:
        UnsupportedImageError: a PNG of several sections, or of other values than uint8.
    """
    if media is MediaType.PNG:
        png.refuse_unstorable(shape, dtype)


def _refuse_other_axes(array: NDArray[Any], found: str, asked: str | None) -> None:
    if asked is not None and len(asked) != array.ndim:
        raise UnsupportedImageError(
            f"axes is {asked} but the image has shape {array.shape}; give as many axes as it has dimensions"
        )
    if asked is None and found not in ("yx", "zyx"):
        raise UnsupportedImageError(
            f"the image has shape {array.shape} with axes {found}; it must be one grey section (y, x) or a stack "
            "(z, y, x)" + (": say axes=zyx if that is what it is" if array.ndim == 3 else ": send its sections alone")
        )
