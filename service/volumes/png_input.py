"""PNG images: one section of grey values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from emboundary.service.errors import InputError, first_line
from emboundary.service.volumes.axes import Axis
from emboundary.service.volumes.bounds import DECODED_BYTES, refuse_large, show_bytes
from emboundary.service.volumes.source import Source, unchunked

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY = 0
_HEADER_BYTES = 33
_PART_BYTES = 1 << 24
# No compressor makes an image larger than this; the rest is room for text and colour profiles.
_FILE_BYTES = DECODED_BYTES + (1 << 26)


@dataclass(frozen=True)
class Header:
    """The part of a PNG that says what its image is: the IHDR chunk."""

    width: int
    height: int
    depth: int
    colour: int

    @classmethod
    def of(cls, where: str, data: bytes) -> Header:
        """Read and check it.

        Raises:
            InputError: cut off, colour, fewer than 8 bits per pixel, or an image that is too large.
        """
        if len(data) < _HEADER_BYTES:
            raise InputError(f"{where} is a PNG that ends after {len(data)} bytes: copy or export it again")
        # Signature, chunk length and name: 16 bytes.
        width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
        header = cls(width, height, data[24], data[25])
        if header.colour != _GREY or header.depth < 8:
            raise InputError(
                f"{where} is a PNG of colour type {header.colour} with {header.depth} bits; it must be grey (type 0) "
                "with 8 or 16 bits: convert it"
            )
        refuse_large(where, "PNG image", header.shape, header.dtype.itemsize)
        return header

    @property
    def shape(self) -> tuple[int, int]:
        """(y, x) in pixels."""
        return self.height, self.width

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the pixels."""
        return np.dtype(np.uint8 if self.depth == 8 else np.uint16)


def open_png(where: str, file: BinaryIO, state: Mapping[str, Any], start: bytes = b"") -> Source:
    """Open a grey PNG; it is decoded whole, as the format asks.

    Args:
        where: what the user called it, for messages.
        file: the file, which is closed.
        state: what changes when the file changes.
        start: what has been read of the file already.

    Raises:
        InputError: a damaged file, colour, transparency, or fewer than 8 bits per pixel.
    """
    with file:
        image = decode_png(where, file, start)
    return Source(where, image, unchunked(image.shape), (Axis("y"), Axis("x")), state=state)


def decode_png(where: str, file: BinaryIO, start: bytes = b"") -> NDArray[Any]:
    """Read an image (y, x); ``start`` has been read already.

    Raises:
        InputError: as ``open_png`` does.
    """
    head = start + file.read(_HEADER_BYTES)
    header = Header.of(where, head)
    # In parts: a read of the largest size would reserve as much, however small the file is.
    parts = [head]
    while sum(map(len, parts)) <= _FILE_BYTES and (part := file.read(_PART_BYTES)):
        parts.append(part)
    data = b"".join(parts)
    if len(data) > _FILE_BYTES:
        raise InputError(f"{where} is a PNG of more than {show_bytes(_FILE_BYTES)}; it must be smaller: is it damaged?")
    try:
        image: NDArray[Any] = imagecodecs.png_decode(data)
    except (imagecodecs.PngError, ValueError) as error:
        raise InputError(f"{where} cannot be decoded as PNG: {first_line(error)}; copy or export it again") from error
    if image.ndim != 2:
        raise InputError(f"{where} is a PNG with transparency; it must be grey alone: remove its alpha channel")
    if image.shape != header.shape or image.dtype != header.dtype:
        raise InputError(f"{where} is a PNG that decodes to another size than it declares: copy or export it again")
    return np.ascontiguousarray(image)
