"""PNG: one grey section of 8 or 16 bit.  The header is read first, so that nothing large is ever decoded."""

from __future__ import annotations

import struct
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from emboundary.service.codecs.errors import MalformedBodyError, UnsupportedImageError, refuse_large

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER = struct.Struct(">8sI4sIIBB")  # signature, chunk length, chunk type, width, height, bit depth, colour type
_COLOURS = {0: "grey", 2: "RGB", 3: "palette", 4: "grey with alpha", 6: "RGBA"}


def decode(body: bytes, limit: int) -> tuple[NDArray[Any], str]:
    """Read a PNG as an array (y, x) and its axes ``yx``.

    Raises:
        MalformedBodyError: no PNG, or one that ends early or is damaged.
        UnsupportedImageError: colour, alpha, a palette, or a bit depth other than 8 and 16.
        TooLargeError: more than ``limit`` bytes once decompressed.
    """
    if len(body) < _HEADER.size or not body.startswith(SIGNATURE):
        raise MalformedBodyError(
            f"the body starts with {body[:8]!r} and is no PNG; send a PNG or name the body's own Content-Type"
        )
    _, _, _, width, height, depth, colour = _HEADER.unpack_from(body)
    if colour != 0 or depth not in (8, 16):
        raise UnsupportedImageError(
            f"the PNG is {_COLOURS.get(colour, 'of unknown colour')} with {depth} bit; it must be grey with 8 or "
            "16 bit: convert it to one channel"
        )
    refuse_large(width * height * depth // 8, limit, f"the PNG of {height}x{width} pixels")
    try:
        image: NDArray[Any] = np.asarray(imagecodecs.png_decode(body))
    except (imagecodecs.PngError, ValueError, MemoryError) as error:
        raise MalformedBodyError(
            f"the PNG cannot be read ({error}); it is truncated or damaged: send it whole"
        ) from error
    if image.shape != (height, width):
        raise UnsupportedImageError("the PNG has a transparent colour (tRNS); it must be grey alone: remove it")
    return image, "yx"


def encode(array: NDArray[Any]) -> bytes:
    """Write an array (y, x), or a single section (1, y, x), of uint8 as PNG.

    Raises:
        UnsupportedImageError: several sections, or values that are not uint8.
    """
    refuse_unstorable(array.shape, array.dtype)
    return bytes(imagecodecs.png_encode(np.ascontiguousarray(array.reshape(array.shape[-2:]))))


def refuse_unstorable(shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Refuse what a PNG cannot hold.

    Raises:
        UnsupportedImageError: several sections, or values that are not uint8.
    """
    if dtype != np.uint8:
        raise UnsupportedImageError(
            f"a PNG cannot hold {dtype} probabilities; ask for dtype=uint8, or for application/x-npy or image/tiff "
            "in Accept"
        )
    if len(shape) == 3 and shape[0] != 1:
        raise UnsupportedImageError(
            f"a PNG holds one section, the answer has {shape[0]}; ask for image/tiff or application/x-npy in Accept"
        )
