"""Sound, damaged and hostile image bodies for ``requests_fuzz.py``, drawn from the random numbers that they get."""

from __future__ import annotations

import io
import pickle
import struct
import zlib
from collections.abc import Callable
from functools import cache
from random import Random
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

NPY, TIFF, PNG = "application/x-npy", "image/tiff", "image/png"
MIB = 1 << 20
# Texts beside an image are no matter of its pixels: the service skips them, and so should the reference.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = 1 << 30
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HOSTILE_NUMBERS = (0, 1, 2, 255, 65_535, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)
_HOSTILE_BYTES = (b"\xff" * 8, b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\1", b"\0" * 64)


@cache
def sound() -> dict[str, tuple[str, bytes]]:
    """Bodies that are as they should be: media type and bytes, by name."""
    stack = np.random.default_rng(0).integers(0, 256, (3, 20, 24)).astype(np.uint8)
    section, wide = stack[0], stack[0].astype(np.uint16) * 257
    bodies = {
        "png-8": (PNG, imagecodecs.png_encode(section)),
        "png-16": (PNG, imagecodecs.png_encode(wide)),
        "npy-section": (NPY, npy(section)),
        "npy-stack": (NPY, npy(stack)),
        "npy-float": (NPY, npy(stack.astype(np.float32))),
        "npy-big-endian": (NPY, npy(wide.astype(">u2"))),
        "npy-columns-first": (NPY, npy(np.asfortranarray(section))),
    }
    layouts: dict[str, dict[str, Any]] = {
        "plain": {},
        "strips": {"compression": "zlib", "rowsperstrip": 7},
        "tiles": {"compression": "lzw", "tile": (16, 16), "predictor": True},
        "zstd": {"compression": "zstd", "tile": (16, 16)},
        "packbits": {"compression": "packbits"},
        "jpeg": {"compression": "jpeg"},
        "jpeg2000": {"compression": "jpeg2000"},
        "big": {"bigtiff": True, "byteorder": ">", "compression": "deflate"},
        "imagej": {"imagej": True, "metadata": {"axes": "ZYX"}},
        "ome": {"ome": True, "metadata": {"axes": "ZYX"}},
    }
    for name, options in layouts.items():
        bodies[f"tiff-{name}"] = (TIFF, tiff(stack, **options))
    return bodies


def npy(array: NDArray[Any], *, allow_pickle: bool = False) -> bytes:
    """A .npy file."""
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=allow_pickle)
    return stream.getvalue()


def tiff(array: NDArray[Any], **options: Any) -> bytes:
    """A TIFF file."""
    stream = io.BytesIO()
    tifffile.imwrite(stream, array, photometric="minisblack", **options)
    return stream.getvalue()


def reference(media: str, body: bytes) -> NDArray[Any]:
    """What the format's own library reads; raises anything where it refuses."""
    if media == NPY:
        array: NDArray[Any] = np.load(io.BytesIO(body), allow_pickle=False)
    elif media == TIFF:
        with tifffile.TiffFile(io.BytesIO(body)) as file:
            array = file.series[0].asarray()
    else:
        with Image.open(io.BytesIO(_pixels_alone(body))) as image:
            image.load()
            array = np.asarray(image)
            if array.dtype not in (np.uint8, np.uint16):
                array = array.astype(np.uint16)
    return array


def _pixels_alone(png: bytes) -> bytes:
    """A PNG without what is beside its pixels, which a reader may skip where it is damaged (PNG, section 13.2).

    As far as it consists of chunks; the first thing that is none is left as it is, with all that follows.
    """
    kept, at = [png[: len(_PNG_SIGNATURE)]], len(_PNG_SIGNATURE)
    while at + 12 <= len(png):
        size, kind = struct.unpack_from(">I4s", png, at)
        if at + 12 + size > len(png):
            break
        if kind[:1].isupper():  # critical
            kept.append(png[at : at + 12 + size])
        at += 12 + size
    return b"".join((*kept, png[at:]))


def damaged(chance: Random) -> tuple[str, bytes]:
    """A sound body, damaged once or twice."""
    media, body = chance.choice(list(sound().values()))
    content = bytearray(body)
    for _ in range(chance.choice((1, 1, 1, 2))):
        # Half of the damage goes to the first bytes: there are the headers.
        at = int(chance.random() * len(content) * chance.choice((0.1, 1)))
        kind = chance.choice(
            ("cut", "cut", "flip", "flip", "flip", "set", "set", "insert", "remove", "repeat", "empty")
        )
        if kind == "cut":
            del content[at:]
        elif kind == "flip" and content:
            for step in range(chance.randint(1, 6)):
                content[(at + step * chance.randint(0, 24)) % len(content)] ^= 1 << chance.randint(0, 7)
        elif kind == "set":
            hostile = chance.choice((*_HOSTILE_BYTES, chance.randbytes(4)))
            content[at : at + len(hostile)] = hostile
        elif kind == "insert":
            content[at:at] = chance.choice((*_HOSTILE_BYTES, chance.randbytes(8)))
        elif kind == "remove":
            del content[at : at + chance.randint(1, 64)]
        elif kind == "repeat":
            content += content[at:]
        elif kind == "empty" and chance.random() < 0.2:
            content.clear()
    return media, bytes(content)


def mistaken(chance: Random) -> tuple[str, bytes]:
    """Bytes of another kind than they are said to be."""
    media, body = chance.choice(list(sound().values()))
    other = chance.choice((NPY, TIFF, PNG, "text/plain", "application/octet-stream", "", "image/jpeg", "multipart/x"))
    makers: tuple[Callable[[], bytes], ...] = (
        lambda: body,
        lambda: chance.randbytes(chance.randint(1, 300)),
        lambda: b'{"image": [[1, 2], [3, 4]]}',
        lambda: b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>',
        lambda: b"PK\x03\x04" + chance.randbytes(60),
        lambda: b"\x1f\x8b\x08" + chance.randbytes(60),
        lambda: b"GIF89a" + chance.randbytes(60),
        lambda: pickle.dumps({"a": list(range(20))}),
    )
    content = chance.choice(makers)()
    return (other, content) if other != media or content != body else ("text/plain", content)


def absurd(chance: Random) -> tuple[str, bytes]:
    """A header that promises what cannot be."""
    return chance.choice((_absurd_npy, _absurd_npy, _absurd_png, _absurd_tiff, _absurd_tiff))(chance)


def _absurd_npy(chance: Random) -> tuple[str, bytes]:
    extents = (0, 1, -1, 7, 1 << 20, 1 << 31, 1 << 40, 1 << 62, 1 << 63, 1 << 70, -(1 << 40))
    shape = tuple(chance.choice(extents) for _ in range(chance.choice((0, 1, 2, 2, 3, 3, 4, 40))))
    descr = chance.choice(
        (
            "|u1",
            "<f4",
            ">u2",
            "|O",
            "|S9999999",
            "<U1000000",
            "|V8",
            "<M8[ns]",
            "<c16",
            "|b1",
            "<f2",
            "x",
            "",
            "|u1" * 9,
        )
    )
    shapes: tuple[object, ...] = (shape, shape, list(shape), str(shape), (1.5, 2), ("9", "9"), ((2, 2), 2), None)
    header = repr(
        {"descr": descr, "fortran_order": chance.choice((False, True, 0, None)), "shape": chance.choice(shapes)}
    )
    header = chance.choice(
        (
            *([header] * 8),
            header + "," * 5000,
            header.replace("shape", "form"),
            "__import__('os').system('true')",
            "(" * 3000,
            "{" + "[" * 500 + "]" * 500 + "}",
            repr([("a", "|u1")]),
            "{'descr': [('a', '|u1'), ('b', '<f8', (1000, 1000))], 'fortran_order': False, 'shape': (3, 3)}",
            "9" * 9000,
            "-" * 9000 + "1",
            "{'descr': '|u1', 'fortran_order': False, 'shape': (2**70, 2)}",
        )
    )
    encoded = header.encode("latin-1") + b"\n"
    version = chance.choice(((1, 0), (1, 0), (2, 0), (3, 0), (9, 9)))
    length = struct.pack("<H" if version == (1, 0) else "<I", chance.choice((len(encoded),) * 6 + (65_535, 0)) & 0xFFFF)
    return NPY, b"\x93NUMPY" + bytes(version) + length + encoded + bytes(chance.randint(0, 99))


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, depth: int, colour: int, data: bytes, *extra: bytes, interlaced: int = 0) -> bytes:
    """A PNG whose header says what it is told to, whatever its data are."""
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced))
    return _PNG_SIGNATURE + header + b"".join(extra) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _absurd_png(chance: Random) -> tuple[str, bytes]:
    width, height = (chance.choice((*_HOSTILE_NUMBERS, 24, 60_000)) for _ in range(2))
    depth, colour = chance.choice((1, 2, 4, 8, 8, 16, 0, 255)), chance.choice((0, 0, 0, 2, 3, 4, 6, 7))
    data = zlib.compress(bytes(chance.randint(0, 600)))
    extra = chance.choice(((), (_chunk(b"tRNS", b"\0\1"),), (_chunk(b"PLTE", b"\0" * 9),), (_chunk(b"gAMA", b"x"),)))
    return PNG, png(width, height, depth, colour, data, *extra, interlaced=chance.choice((0, 0, 1, 9)))


@cache
def _tiff_values() -> list[tuple[bytes, list[int]]]:
    """Sound TIFFs of the classic kind, and where the entries of their directories stand."""
    found = []
    for name, (media, body) in sound().items():
        if media == TIFF and name != "tiff-big":
            with tifffile.TiffFile(io.BytesIO(body)) as file:
                found.append((body, [tag.offset for page in file.pages for tag in page.tags]))  # type: ignore[union-attr]
    return found


def _absurd_tiff(chance: Random) -> tuple[str, bytes]:
    body, places = chance.choice(_tiff_values())
    content = bytearray(body)
    for _ in range(chance.choice((1, 1, 2))):
        # code (2 bytes), type (2), count (4), value or offset (4)
        step, width = chance.choice(((0, "H"), (2, "H"), (4, "I"), (8, "I"), (8, "I"), (8, "I")))
        at = chance.choice(places) + step
        number = chance.choice((*_HOSTILE_NUMBERS, len(body), 8, chance.randint(0, 99)))
        struct.pack_into(f"<{width}", content, at, number & (0xFFFF if width == "H" else 0xFFFFFFFF))
    return TIFF, bytes(content)


def bomb(chance: Random) -> tuple[str, bytes]:
    """A small body that would be large, or take long, once it is unpacked."""
    return bomb_of(chance.randrange(len(_BOMBS)))


@cache
def bomb_of(number: int) -> tuple[str, bytes]:
    """One of them, as ``attacks.py`` names them."""
    return _BOMBS[number]()


@cache
def _nothing() -> bytes:
    """Compressed to 100 KB."""
    return zlib.compress(bytes(100 * MIB), 9)


def _noted(name: bytes, content: bytes, count: int = 1) -> tuple[str, bytes]:
    """A sound PNG with something beside its pixels."""
    return PNG, png(24, 24, 8, 0, zlib.compress(bytes(600)), *[_chunk(name, content)] * count)


def _described(text: str) -> tuple[str, bytes]:
    """A sound TIFF whose description is to be interpreted."""
    return TIFF, tiff(np.zeros((24, 24), np.uint8), description=text, metadata=None)


def _many_zeros(compression: str) -> tuple[str, bytes]:
    return TIFF, tiff(np.zeros((5, 4096, 4096), np.uint8), compression=compression, rowsperstrip=4096)


_LAUGHS = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 10))
_XML = '<?xml version="1.0"?><!DOCTYPE OME [<!ENTITY a0 {}>{}]><OME><Image Name="&a{};"/></OME>'
_BOMBS: tuple[Callable[[], tuple[str, bytes]], ...] = (
    lambda: (PNG, png(12_000, 12_000, 8, 0, zlib.compress(bytes(12_000 * 12_001)))),
    lambda: (PNG, png(24, 24, 8, 0, _nothing())),
    lambda: _noted(b"zTXt", b"Comment\0\0" + _nothing()),
    lambda: _noted(b"iCCP", b"Comment\0\0" + _nothing()),
    lambda: _noted(b"tEXt", b"a\0b", 20_000),
    lambda: _many_zeros("zlib"),
    lambda: _many_zeros("lzma"),
    lambda: (TIFF, _with_other_strip(_nothing(), "zlib")),
    lambda: (TIFF, _with_other_strip(imagecodecs.zstd_encode(bytes(200 * MIB)), "zstd")),
    lambda: (TIFF, _with_other_strip(imagecodecs.lzma_encode(bytes(64 * MIB)), "lzma")),
    lambda: (TIFF, _endless_directories()),
    lambda: (TIFF, _many_directories(20_000)),
    lambda: _described(_XML.format('"ha"', _LAUGHS, 9)),
    lambda: _described(_XML.format('SYSTEM "file:///etc/passwd"', "", 0)),
    lambda: _described('{"shape": [1099511627776, 1099511627776]}'),
    lambda: _described("ImageJ=1.53\nimages=2000000000\nslices=2000000000\n"),
    lambda: (NPY, npy(np.zeros((1 << 21, 1, 1), np.uint8))),
    lambda: (NPY, npy(np.zeros((1, 1 << 25), np.uint8))),
    lambda: (NPY, b"\x93NUMPY\2\0" + struct.pack("<I", 8 * MIB) + b"[" * 8 * MIB),
    lambda: (NPY, b"\x93NUMPY\2\0" + struct.pack("<I", (1 << 32) - 1) + b"{"),
    lambda: (NPY, npy(np.array([{"a": 1}, None], dtype=object), allow_pickle=True)),
    lambda: (NPY, bytes(65 * MIB)),
)


def _with_other_strip(strip: bytes, compression: str) -> bytes:
    """A TIFF of 24 x 24 pixels whose only strip is another one."""
    body = bytearray(tiff(np.zeros((24, 24), np.uint8), compression=compression, rowsperstrip=24, metadata=None))
    with tifffile.TiffFile(io.BytesIO(bytes(body))) as file:
        tags = {name: file.pages.first.tags[name].offset + 8 for name in ("StripOffsets", "StripByteCounts")}
    for name, value in (("StripOffsets", len(body)), ("StripByteCounts", len(strip))):
        struct.pack_into("<I", body, tags[name], value)
        struct.pack_into("<H", body, tags[name] - 6, 4)  # LONG
    return bytes(body) + strip


def _endless_directories() -> bytes:
    """A TIFF whose directory is its own successor."""
    return b"II*\0\x08\0\0\0\1\0" + struct.pack("<HHII", 256, 3, 1, 9) + struct.pack("<I", 8)


def _many_directories(count: int) -> bytes:
    """A TIFF of so many empty directories."""
    entry = struct.pack("<HHII", 256, 3, 1, 9)
    size = 2 + len(entry) + 4
    directories = (struct.pack("<H", 1) + entry + struct.pack("<I", 8 + (n + 1) * size) for n in range(count))
    return b"II*\0\x08\0\0\0" + b"".join(directories) + struct.pack("<H", 0) + struct.pack("<I", 0)
