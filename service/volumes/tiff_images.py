"""Images inside a TIFF's strips and tiles: JPEG, JPEG 2000 and PNG declare a size of their own.

The TIFF's tags bound what other compressions decode to; these decoders go by what stands in the image itself.
"""

from __future__ import annotations

import struct

from emboundary.service.volumes.bounds import DECODED_BYTES, show_bytes

_JPEG = frozenset({6, 7, 33007, 34892})
_JPEG2000 = frozenset({33003, 33004, 33005, 34712})
_PNG = 34933
# Start of frame, the JPEG segment that has the size: all of 0xC0 to 0xCF that are no tables.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_MOST_COMPONENTS = 4


def refuse_large_image(compression: int, data: bytes, itemsize: int) -> None:
    """Refuse an image that declares itself larger than what we decode in one piece.

    Raises:
        ValueError: names the image's extent and the bound.
    """
    if compression in _JPEG:
        extent = _jpeg(data)
    elif compression in _JPEG2000:
        extent = _jpeg2000(data)
    elif compression == _PNG:
        extent = struct.unpack_from(">II", data, 16) if len(data) >= 24 else (0, 0)
    else:
        return
    size = extent[0] * extent[1] * max(itemsize, 1) * _MOST_COMPONENTS
    if size > _MOST_COMPONENTS * DECODED_BYTES:
        raise ValueError(
            f"an image of {extent[0]} x {extent[1]} pixels inside a strip or tile; it must have at most "
            f"{show_bytes(DECODED_BYTES)} once decoded"
        )


def _jpeg(data: bytes) -> tuple[int, int]:
    """Width and height; (0, 0) where there is none, which the decoder then refuses."""
    place = 2
    while place + 9 <= len(data) and data[place] == 0xFF:
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", data, place + 5)
            return width, height
        place += 2 + max(length, 2)
    return 0, 0


def _jpeg2000(data: bytes) -> tuple[int, int]:
    """Width and height of the reference grid."""
    place = data.find(b"\xff\x4f\xff\x51")  # start of codestream, size
    if place < 0 or place + 16 > len(data):
        return 0, 0
    width, height = struct.unpack_from(">II", data, place + 8)
    return width, height
