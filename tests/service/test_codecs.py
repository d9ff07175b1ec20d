from __future__ import annotations

import contextlib
import io
import struct
import zlib
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from emboundary.service.codecs import MediaType, decode, encode, refuse_unstorable
from emboundary.service.codecs.errors import MalformedBodyError, TooLargeError, UnsupportedImageError
from emboundary.service.errors import InputError

LIMIT = 1 << 20
SHAPES = [(3, 5, 7), (1, 5, 7), (5, 7), (3, 5, 1), (3, 1, 5), (1, 1), (1, 1, 1), (4, 5, 3), (2, 3, 4)]


def npy(array: NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def tiff(array: NDArray[Any], **options: Any) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, array, **options)
    return stream.getvalue()


def image(shape: tuple[int, ...], dtype: str = "uint8") -> NDArray[Any]:
    return np.random.default_rng(0).integers(0, 256, shape).astype(dtype)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
@pytest.mark.parametrize("media", [MediaType.NPY, MediaType.TIFF])
def test_every_answer_comes_back_as_it_was(shape: tuple[int, ...], dtype: str, media: MediaType) -> None:
    array = image(shape, dtype)
    axes = "zyx"[-len(shape) :]
    back = decode(encode(array, media), media, limit=LIMIT, axes=axes)
    np.testing.assert_array_equal(back, array)
    assert back.dtype == array.dtype


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_grey_png_is_read_with_8_and_16_bit(dtype: str) -> None:
    array = image((5, 7), dtype) * (257 if dtype == "uint16" else 1)
    np.testing.assert_array_equal(decode(imagecodecs.png_encode(array), MediaType.PNG, limit=LIMIT), array)


def test_png_holds_one_section() -> None:
    array = image((1, 5, 7))
    np.testing.assert_array_equal(decode(encode(array, MediaType.PNG), MediaType.PNG, limit=LIMIT), array[0])
    with pytest.raises(UnsupportedImageError, match=r"holds one section, the answer has 2; ask for image/tiff"):
        encode(image((2, 5, 7)), MediaType.PNG)


def test_png_refuses_floats_before_anything_is_computed() -> None:
    with pytest.raises(UnsupportedImageError, match=r"cannot hold float32 probabilities; ask for dtype=uint8, or"):
        refuse_unstorable((5, 7), np.dtype("float32"), MediaType.PNG)


@pytest.mark.parametrize("dtype", ["<u2", ">u2", ">f4", "<f8", "int64"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_is_read_in_any_byte_and_memory_order(dtype: str, order: Any) -> None:
    array = np.asarray(image((3, 5, 7)), dtype=dtype, order=order)
    back = decode(npy(array), MediaType.NPY, limit=LIMIT)
    np.testing.assert_array_equal(back, array)
    assert back.dtype.isnative
    assert back.flags.c_contiguous


def test_pages_without_description_are_sections() -> None:
    array = image((3, 16, 16))
    body = tiff(array, photometric="minisblack", metadata=None)
    np.testing.assert_array_equal(decode(body, MediaType.TIFF, limit=LIMIT), array)


@pytest.mark.parametrize("media", list(MediaType))
def test_an_empty_body_is_malformed(media: MediaType) -> None:
    with pytest.raises(MalformedBodyError, match=r"the body is empty \(0 bytes\)"):
        decode(b"", media, limit=LIMIT)


@pytest.mark.parametrize("media", list(MediaType))
def test_a_body_of_another_type_is_malformed(media: MediaType) -> None:
    with pytest.raises(MalformedBodyError):
        decode(b"this is text, and long enough for any header", media, limit=LIMIT)


BODIES = {
    "npy": (npy(image((3, 9, 9))), MediaType.NPY),
    "png": (imagecodecs.png_encode(image((40, 40))), MediaType.PNG),
    "plain tiff": (tiff(image((3, 40, 40)), photometric="minisblack"), MediaType.TIFF),
    "zlib tiff": (tiff(image((3, 40, 40)), photometric="minisblack", compression="zlib"), MediaType.TIFF),
    "tiled tiff": (tiff(image((3, 40, 40)), photometric="minisblack", tile=(16, 16)), MediaType.TIFF),
}


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("keep", [0.1, 0.5, 0.97])
def test_a_truncated_body_is_malformed(name: str, keep: float) -> None:
    body, media = BODIES[name]
    with pytest.raises(MalformedBodyError, match=r"truncated|send it whole|no npy file"):
        decode(body[: int(len(body) * keep)], media, limit=LIMIT)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", BODIES)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data())
def test_damaged_bytes_are_read_or_refused_and_nothing_else(name: str, data: st.DataObject) -> None:
    body, media = BODIES[name]
    damaged = bytearray(body)
    for _ in range(data.draw(st.integers(1, 8))):
        # the headers decide most: half of the damage goes there
        place = data.draw(st.integers(0, len(body) - 1) | st.integers(0, min(300, len(body) - 1)))
        damaged[place] = data.draw(st.integers(0, 255))
    with contextlib.suppress(InputError):
        decode(bytes(damaged), media, limit=LIMIT)


def test_pages_in_a_circle_are_malformed() -> None:
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        for section in image((3, 16, 16)):
            writer.write(section, photometric="minisblack", metadata=None)
    body = bytearray(stream.getvalue())
    with tifffile.TiffFile(io.BytesIO(body)) as file:
        first, last = file.pages[0].offset, file.pages[2].offset
    tags = struct.unpack_from("<H", body, last)[0]
    struct.pack_into("<I", body, last + 2 + 12 * tags, first)
    with pytest.raises(MalformedBodyError, match="the TIFF is truncated"):
        decode(bytes(body), MediaType.TIFF, limit=LIMIT)


def test_a_tiff_that_is_white_where_it_is_dark_is_refused() -> None:
    body = tiff(image((9, 9)), photometric="miniswhite")
    with pytest.raises(UnsupportedImageError, match=r"the TIFF is MINISWHITE .* must be grey \(MINISBLACK\)"):
        decode(body, MediaType.TIFF, limit=LIMIT)


def png_header(width: int, height: int, depth: int, colour: int) -> bytes:
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))


@pytest.mark.parametrize(
    ("body", "media"),
    [
        (png_header(100_000, 100_000, 8, 0), MediaType.PNG),
        (npy(np.zeros(1)).replace(b"(1,), }  ", b"(99999,)}"), MediaType.NPY),
        (tiff(np.zeros((64, 256, 256), np.uint8), photometric="minisblack", compression="zlib"), MediaType.TIFF),
    ],
    ids=["png", "npy", "tiff"],
)
def test_what_is_too_large_once_decompressed_is_refused_by_its_header(body: bytes, media: MediaType) -> None:
    assert len(body) < LIMIT // 8
    with pytest.raises(TooLargeError, match=r"holds \d+ bytes once decompressed; at most 65536 are accepted"):
        decode(body, media, limit=1 << 16)


@pytest.mark.parametrize(
    ("body", "media", "message"),
    [
        (imagecodecs.png_encode(image((5, 7, 3))), MediaType.PNG, "the PNG is RGB with 8 bit; it must be grey"),
        (imagecodecs.png_encode(image((5, 7, 4))), MediaType.PNG, "the PNG is RGBA with 8 bit"),
        (png_header(9, 9, 1, 0), MediaType.PNG, "the PNG is grey with 1 bit; it must be grey with 8 or 16 bit"),
        (tiff(image((5, 7, 3)), photometric="rgb"), MediaType.TIFF, "the TIFF is RGB with 3 samples per pixel"),
        (tiff(image((3, 9, 9)), imagej=True, metadata={"axes": "CYX"}), MediaType.TIFF, r"axes cyx; .* say axes=zyx"),
        (npy(image((5, 7, 3))), MediaType.NPY, r"shape \(5, 7, 3\) with axes yxs; .* say axes=zyx"),
        (npy(image((2, 2, 5, 7))), MediaType.NPY, r"shape \(2, 2, 5, 7\) .* must be one grey section"),
        (npy(image((5,))), MediaType.NPY, r"shape \(5,\) .* must be one grey section"),
        (npy(image((5, 7), "complex64")), MediaType.NPY, "complex64 values; they must be integers or floats"),
        (npy(image((5, 7), "bool")), MediaType.NPY, "bool values; they must be integers or floats"),
        (npy(image((5, 7), "longdouble")), MediaType.NPY, "values; they must be integers or floats of at most 64 bit"),
        (npy(np.zeros((5, 7), [("a", "u1")])), MediaType.NPY, "it must hold plain numbers"),
        (npy(np.array([[None]])), MediaType.NPY, "the npy file holds object; it must hold plain numbers"),
        (npy(np.array([["a"]])), MediaType.NPY, "values; they must be integers or floats"),
        (npy(np.zeros((0, 7))), MediaType.NPY, r"shape \(0, 7\); every axis must have at least 1 voxel"),
    ],
)
def test_other_images_are_refused_with_their_remedy(body: bytes, media: MediaType, message: str) -> None:
    with pytest.raises(UnsupportedImageError, match=message):
        decode(body, media, limit=LIMIT)


def test_pages_of_different_sizes_are_refused() -> None:
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        writer.write(image((9, 9)), photometric="minisblack")
        writer.write(image((5, 7)), photometric="minisblack")
    with pytest.raises(UnsupportedImageError, match="holds 2 images of different kinds"):
        decode(stream.getvalue(), MediaType.TIFF, limit=LIMIT)


def test_axes_settle_what_a_thin_stack_is() -> None:
    array = image((5, 7, 3))
    np.testing.assert_array_equal(decode(npy(array), MediaType.NPY, limit=LIMIT, axes="zyx"), array)


def test_axes_must_fit_the_image() -> None:
    with pytest.raises(UnsupportedImageError, match=r"axes is yx but the image has shape \(3, 5, 7\)"):
        decode(npy(image((3, 5, 7))), MediaType.NPY, limit=LIMIT, axes="yx")
