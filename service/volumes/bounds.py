"""How much a file may make us hold at once: checked against what it declares, before anything is allocated."""

from __future__ import annotations

import math

from emboundary.service.errors import InputError

# What a chunk, strip, tile or image may hold once it is decoded.
DECODED_BYTES = 1 << 31
# What one JSON document of metadata may hold; consolidated metadata of large collections have some megabytes.
DOCUMENT_BYTES = 1 << 26
# Beyond this, an extent is no longer exact in the floating-point arithmetic of the libraries below us.
_EXTENT = 1 << 48
_ADDRESSABLE_BYTES = 1 << 63


def refuse_large(where: str, what: str, shape: tuple[int, ...], itemsize: int) -> None:
    """Refuse a part that must be decoded in one piece and is too large for that.

    Args:
        where: what the user called the volume.
        what: the part, e.g. ``chunk``.
        shape: of the part, in voxels.
        itemsize: bytes of a voxel.

    Raises:
        InputError: names the part's shape and size, the bound, and the remedy.
    """
    size = math.prod(shape) * itemsize
    if size > DECODED_BYTES:
        raise InputError(
            f"{where} has a {what} of shape {shape}, {show_bytes(size)} once decoded; it must be at most "
            f"{show_bytes(DECODED_BYTES)}: store the volume in smaller chunks"
        )


def refuse_unaddressable(where: str, shape: tuple[int, ...], itemsize: int) -> None:
    """Refuse a shape that no machine can count in: one beyond 2^48 along an axis, or 2^63 bytes in all.

    Raises:
        InputError: names the shape, the bounds, and the remedy.
    """
    if max(shape, default=0) > _EXTENT or math.prod(shape) * itemsize >= _ADDRESSABLE_BYTES:
        raise InputError(
            f"{where} has shape {shape} with {itemsize} bytes per voxel; an axis must have at most 2^48 voxels and a "
            "volume less than 2^63 bytes: mend its metadata"
        )


def show_bytes(size: int) -> str:
    """A number of bytes for messages, e.g. ``2.0 GiB``."""
    if size < 1 << 30:
        return f"{size} bytes"
    exponent = min(6, (size.bit_length() - 1) // 10)
    # Python's integers have no largest value, its floats do.
    return f"{min(size, 1 << 90) / (1 << 10 * exponent):.1f} {' KMGTPE'[exponent]}iB"
