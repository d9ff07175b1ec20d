"""What a file may make us hold at once."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib

import numcodecs
import pytest

from emboundary.service.errors import InputError
from emboundary.service.volumes.bombs import refuse_bomb
from emboundary.service.volumes.bounds import DECODED_BYTES, refuse_large, refuse_unaddressable, show_bytes


def test_parts_up_to_the_bound_are_accepted() -> None:
    refuse_large("v", "chunk", (1, 1 << 15, 1 << 15), 2)
    with pytest.raises(
        InputError, match=r"^v has a chunk of shape \(1, 32769, 32768\), 2\.0 GiB once decoded; it must be at most 2\.0"
    ):
        refuse_large("v", "chunk", (1, (1 << 15) + 1, 1 << 15), 2)


def test_huge_products_do_not_overflow() -> None:
    with pytest.raises(InputError, match=r"EiB once decoded"):
        refuse_large("v", "chunk", (1 << 2000,) * 32, 8)


@pytest.mark.parametrize("shape", [(1 << 20, 1 << 20, 1 << 20), (1, 1, 1 << 48), (), (0, 1 << 48, 1 << 48)])
def test_shapes_that_can_be_counted_are_accepted(shape: tuple[int, ...]) -> None:
    refuse_unaddressable("v", shape, 4)


@pytest.mark.parametrize("shape", [(1, 1, (1 << 48) + 1), (1 << 21, 1 << 20, 1 << 20), (1 << 2000, 0, 1)])
def test_shapes_beyond_counting_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"at most 2\^48 voxels and a volume less than 2\^63 bytes: mend its metadata"):
        refuse_unaddressable("v", shape, 4)


@pytest.mark.parametrize(
    ("size", "text"), [(5, "5 bytes"), (1 << 30, "1.0 GiB"), (3 << 39, "1.5 TiB"), (1 << 64, "16.0 EiB")]
)
def test_sizes_are_shown_in_a_fitting_unit(size: int, text: str) -> None:
    assert show_bytes(size) == text


CONTENT = bytes(1 << 22)
COMPRESSED = {
    "gzip": gzip.compress(CONTENT, mtime=0),
    "zlib": zlib.compress(CONTENT),
    "bzip2": bz2.compress(CONTENT),
    "xz": lzma.compress(CONTENT),
    "zstd": bytes(numcodecs.Zstd().encode(CONTENT)),
    "small zstd": bytes(numcodecs.Zstd().encode(bytes(300))),
}


@pytest.mark.parametrize("name", COMPRESSED)
def test_what_decodes_to_more_than_it_stands_for_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emboundary.service.volumes.bombs._HARMLESS_DEFLATE", 100)
    size = 300 if "small" in name else len(CONTENT)
    refuse_bomb(COMPRESSED[name], size)
    with pytest.raises(ValueError, match=r"a chunk decodes to more than \d+ bytes, far more than its shape says"):
        refuse_bomb(COMPRESSED[name], size - 1)


@pytest.mark.parametrize("name", COMPRESSED)
def test_what_is_damaged_or_not_compressed_is_left_to_the_codec(name: str) -> None:
    refuse_bomb(COMPRESSED[name][:10], 1)
    refuse_bomb(COMPRESSED[name][:6] + b"\xff" * (DECODED_BYTES // 1032), 1 << 40)
    refuse_bomb(CONTENT, 1)
    refuse_bomb(b"", 0)
