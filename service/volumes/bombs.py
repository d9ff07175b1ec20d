"""Compressed data that would grow far beyond what they stand for, found before the codec that takes any size sees them.

The codecs of Zarr decode whatever a chunk holds and only then compare it with the chunk's shape.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from typing import Any

from emboundary.service.volumes.bounds import DECODED_BYTES, show_bytes

_ZSTD = b"\x28\xb5\x2f\xfd"
_GZIP = b"\x1f\x8b\x08"
_BZIP2 = b"BZh"
_XZ = b"\xfd7zXZ\0"
# Deflate makes of one byte no more than 1032, so that less than this cannot grow beyond the bound.
_HARMLESS_DEFLATE = DECODED_BYTES // 1032
_STEP = 1 << 24


def refuse_bomb(data: bytes, most: int) -> None:
    """Refuse data that are recognised as compressed and decode to more than ``most`` bytes.

    Raises:
        ValueError: names the bound.
    """
    if data.startswith(_ZSTD):
        grown = _declared_by_zstd(data) > most
    elif data.startswith(_GZIP):
        grown = len(data) > _HARMLESS_DEFLATE and _grows(zlib.decompressobj(wbits=31), data, most)
    elif _is_zlib(data):
        grown = len(data) > _HARMLESS_DEFLATE and _grows(zlib.decompressobj(), data, most)
    elif data.startswith(_BZIP2):
        grown = _grows(bz2.BZ2Decompressor(), data, most)
    elif data.startswith(_XZ):
        grown = _grows(lzma.LZMADecompressor(memlimit=DECODED_BYTES), data, most)
    else:
        return
    if grown:
        raise ValueError(f"a chunk decodes to more than {show_bytes(most)}, far more than its shape says")


def _grows(decompressor: Any, data: bytes, most: int) -> bool:
    """Whether a stream decodes to more than ``most`` bytes; nothing of them is kept."""
    total = 0
    part = data
    try:
        while not decompressor.eof:
            got = len(decompressor.decompress(part, _STEP))
            part = getattr(decompressor, "unconsumed_tail", b"")
            total += got
            if total > most:
                return True
            if not got and not part:
                return False  # cut off: the codec says so
    except (zlib.error, OSError, EOFError, lzma.LZMAError):
        return False  # damaged, or not compressed at all: the codec knows
    return False


def _is_zlib(data: bytes) -> bool:
    return len(data) > 2 and data[0] == 0x78 and int.from_bytes(data[:2], "big") % 31 == 0


def _declared_by_zstd(data: bytes) -> int:
    """The size that a zstd frame declares for its content; 0 where it declares none."""
    if len(data) < 18:
        return 0
    descriptor = data[4]
    single = descriptor >> 5 & 1
    length = (single, 2, 4, 8)[descriptor >> 6]
    start = 5 + (1 - single) + (0, 1, 2, 4)[descriptor & 3]
    return int.from_bytes(data[start : start + length], "little") + (256 if length == 2 else 0)
