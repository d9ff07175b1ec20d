"""PNG images: one section of grey values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from emboundary.service.errors import InputError
from emboundary.service.volumes.axes import Axis
from emboundary.service.volumes.source import Source, unchunked

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY = 0


@dataclass(frozen=True)
class _Header:
    """The part of the IHDR chunk that decides whether we can read the image."""

    depth: int
    colour: int

    @classmethod
    def of(cls, data: bytes) -> _Header:
        # Signature, chunk length and name, width and height: 24 bytes; then bit depth and colour type.
        return cls(data[24], data[25])


def open_png(path: Path) -> Source:
    """Open a grey PNG; it is decoded whole, as the format asks.

    Raises:
        InputError: a damaged file, colour, transparency, or fewer than 8 bits per pixel.
    """
    data = path.read_bytes()
    if len(data) < 33:
        raise InputError(f"{path} is a PNG that ends after {len(data)} bytes: copy or export it again")
    header = _Header.of(data)
    if header.colour != _GREY or header.depth < 8:
        raise InputError(
            f"{path} is a PNG of colour type {header.colour} with {header.depth} bits; it must be grey (type 0) with 8 "
            "or 16 bits: convert it"
        )
    try:
        image: NDArray[Any] = imagecodecs.png_decode(data)
    except (imagecodecs.PngError, ValueError) as error:
        raise InputError(f"{path} cannot be decoded as PNG: {error}; copy or export it again") from error
    if image.ndim != 2:
        raise InputError(f"{path} is a PNG with transparency; it must be grey alone: remove its alpha channel")
    return Source(str(path), np.ascontiguousarray(image), unchunked(image.shape), (Axis("y"), Axis("x")))
