"""Volumes that ask for more than a machine has: absurd shapes, chunks larger than memory, bombs, endless metadata.

Each must be refused, or open and be read in parts, within seconds and in bounded memory.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import imagecodecs
import numpy as np
import pytest
import tifffile

SECONDS = 4
MOST_MIB = 512
HUGE = 1 << 20
N5_TYPE = {"dataType": "uint8", "compression": {"type": "raw"}}


def v2(path: Path, shape: list[int], chunks: list[int], **more: Any) -> None:
    path.mkdir()
    plain = {"zarr_format": 2, "dtype": "|u1", "compressor": None, "filters": None, "fill_value": 3, "order": "C"}
    (path / ".zarray").write_text(json.dumps(plain | {"shape": shape, "chunks": chunks} | more))


def v3(path: Path, shape: list[int], chunks: list[int], codecs: list[Any] | None = None, **more: Any) -> None:
    path.mkdir()
    metadata = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": shape,
        "data_type": "uint8",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunks}},
        "chunk_key_encoding": {"name": "default"},
        "fill_value": 3,
        "codecs": codecs or [{"name": "bytes"}],
    }
    (path / "zarr.json").write_text(json.dumps(metadata | more))


def sharding(chunks: list[int]) -> list[Any]:
    configuration = {
        "chunk_shape": chunks,
        "codecs": [{"name": "bytes"}],
        "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
    }
    return [{"name": "sharding_indexed", "configuration": configuration}]


def n5(path: Path, shape: list[int], blocks: list[int], **more: Any) -> None:
    path.mkdir()
    (path / "attributes.json").write_text(json.dumps({"dimensions": shape, "blockSize": blocks} | N5_TYPE | more))


def precomputed(path: Path, shape: list[int], chunks: list[int]) -> None:
    path.mkdir()
    scale = {"key": "s", "size": shape, "resolution": [4, 4, 50], "chunk_sizes": [chunks], "encoding": "raw"}
    info = {"type": "image", "data_type": "uint8", "num_channels": 1, "scales": [scale | {"voxel_offset": [0, 0, 0]}]}
    (path / "info").write_text(json.dumps(info))


def hdf5(path: Path, shape: list[int], chunks: list[int]) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("v", shape=shape, chunks=tuple(chunks), dtype="uint8", fillvalue=3)


def tiff(path: Path, shape: list[int], chunks: list[int]) -> None:
    """One page with one strip or tile of a few bytes, whose tags tell another story."""
    content = zlib.compress(bytes(100))
    layout = [(278, 4, 1, shape[-2])] if chunks == shape else [(322, 4, 1, chunks[-1]), (323, 4, 1, chunks[-2])]
    place, length = (273, 279) if chunks == shape else (324, 325)
    tags = [
        (256, 4, 1, shape[-1]),
        (257, 4, 1, shape[-2]),
        (258, 3, 1, 8),
        (259, 3, 1, 8),
        (262, 3, 1, 1),
        (277, 3, 1, 1),
        *layout,
        (place, 4, 1, 8),
        (length, 4, 1, len(content)),
    ]
    start = 8 + len(content) + len(content) % 2
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags)) + bytes(4)
    path.write_bytes(b"II*\0" + struct.pack("<I", start) + content.ljust(start - 8, b"\0") + directory)


def png(path: Path, shape: list[int], _: list[int]) -> None:
    header = struct.pack(">IIBBBBB", shape[-1], shape[-2], 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")]
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks)
    )


def check(found: dict[str, Any], outcomes: tuple[str, ...] = ("refused", "read")) -> None:
    assert found["outcome"] in outcomes, found
    assert found["seconds"] < SECONDS, found
    assert found["mib"] < MOST_MIB, found


WRITERS: dict[str, Callable[[Path, list[int], list[int]], None]] = {
    "zarr-v2": v2,
    "zarr-v3": v3,
    "zarr-sharded": lambda path, shape, chunks: v3(path, shape, chunks, sharding([1, 8, 8])),
    "n5": n5,
    "precomputed": precomputed,
    "hdf5": hdf5,
    "tiff": tiff,
    "png": png,
}
VOLUMES = [name for name in WRITERS if name not in ("tiff", "png")]
Ask = Callable[..., dict[str, Any]]


@pytest.mark.parametrize("name", VOLUMES)
def test_2_to_the_60_voxels_are_read_in_parts(tmp_path: Path, examine: Ask, name: str) -> None:
    WRITERS[name](tmp_path / "v", [HUGE] * 3, [16, 32, 32])
    check(examine(tmp_path / "v", name.partition("-")[0]), ("read",))


@pytest.mark.parametrize("name", VOLUMES)
def test_shapes_beyond_counting_are_refused(tmp_path: Path, examine: Ask, name: str) -> None:
    for number, shape in enumerate([[1 << 31] * 3, [1, 1, 1 << 60]]):
        try:
            WRITERS[name](tmp_path / f"{number}", shape, [1, 32, 32])
        except ValueError:
            assert name == "hdf5"  # the library itself does not write them
            continue
        check(examine(tmp_path / f"{number}", name.partition("-")[0]), ("refused",))


@pytest.mark.parametrize("name", [name for name in WRITERS if name != "zarr-sharded"])
def test_chunks_larger_than_memory_are_refused(tmp_path: Path, examine: Ask, name: str) -> None:
    # HDF5 itself keeps its chunks below 4 GiB.
    side = 60_000 if name == "hdf5" else 100_000
    WRITERS[name](tmp_path / "v", [1, side, side], [1, side, side])
    found = examine(tmp_path / "v", name.partition("-")[0])
    check(found, ("refused",))
    assert "GiB once decoded; it must be at most 2.0 GiB: store the volume in smaller chunks" in found["text"]


def test_shards_with_an_index_larger_than_memory_are_refused(tmp_path: Path, examine: Ask) -> None:
    v3(tmp_path / "v", [HUGE] * 3, [HUGE, HUGE, 8], sharding([8, 8, 8]))
    found = examine(tmp_path / "v", "zarr")
    check(found, ("refused",))
    assert "shard with an index" in found["text"]


def test_a_chunk_file_larger_than_its_chunk_is_refused(tmp_path: Path, examine: Ask) -> None:
    v2(tmp_path / "v", [4, 8, 8], [4, 8, 8])
    with (tmp_path / "v" / "0.0.0").open("wb") as file:
        file.truncate(1 << 40)  # sparse: it takes no room
    check(examine(tmp_path / "v", "zarr"), ("refused",))


@pytest.mark.parametrize("name", [".zarray", "zarr.json", "attributes.json", "info"])
@pytest.mark.parametrize("content", ["sparse", "deep", "digits"])
def test_endless_metadata_are_refused(tmp_path: Path, examine: Ask, name: str, content: str) -> None:
    if content == "sparse":
        with (tmp_path / name).open("wb") as file:
            file.truncate(1 << 40)
    else:
        (tmp_path / name).write_text('{"shape":' + ("[" * 1_000_000 if content == "deep" else "1" * 1_000_000))
    check(examine(tmp_path, "zarr"), ("refused",))


BOMB = 1 << 33


def bomb(wbits: int) -> bytes:
    """8 GiB of zeros in 8 MiB, as gzip or zlib but for the checksum at the end: it comes too late to help."""
    compressor = zlib.compressobj(9, wbits=wbits)
    head = compressor.compress(b"") + compressor.flush(zlib.Z_FULL_FLUSH)
    part = compressor.compress(bytes(1 << 26)) + compressor.flush(zlib.Z_FULL_FLUSH)
    return head + part * (BOMB >> 26) + compressor.flush()


BOMBS = {"gzip": bomb(31), "zlib": bomb(15)}


@pytest.mark.parametrize("name", ["v2-gzip", "v2-zlib", "v3-gzip", "n5-gzip"])
def test_bombs_are_refused(tmp_path: Path, examine: Ask, name: str) -> None:
    layout, _, codec = name.partition("-")
    path = tmp_path / "v"
    if layout == "v2":
        v2(path, [4, 8, 8], [4, 8, 8], compressor={"id": codec, "level": 1})
        chunk = path / "0.0.0"
    elif layout == "v3":
        v3(path, [4, 8, 8], [4, 8, 8], [{"name": "bytes"}, {"name": "gzip", "configuration": {"level": 1}}])
        chunk = path / "c" / "0" / "0" / "0"
    else:
        n5(path, [8, 8, 4], [8, 8, 4], compression={"type": "gzip"})
        chunk = path / "0" / "0" / "0"
    chunk.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(">HHIII", 0, 3, 8, 8, 4) if layout == "n5" else b""
    chunk.write_bytes(header + BOMBS[codec])
    check(examine(path, "n5" if layout == "n5" else "zarr"))


@pytest.mark.parametrize("compression", ["zlib", "zstd"])
def test_bombs_in_a_tiff_are_refused(tmp_path: Path, examine: Ask, compression: str) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((2, 16, 16), np.uint8), compression=compression, photometric="minisblack")
    bomb = BOMBS["zlib"] if compression == "zlib" else imagecodecs.zstd_encode(bytes(1 << 29))
    with tifffile.TiffFile(path) as file:
        page = file.pages[1]
        places = [page.tags[tag].valueoffset for tag in ("StripOffsets", "StripByteCounts")]
        kinds = [page.tags[tag].dtype for tag in ("StripOffsets", "StripByteCounts")]
    content = bytearray(path.read_bytes())
    start = len(content)
    for where, kind, value in zip(places, kinds, (start, len(bomb)), strict=True):
        form = {3: "<H", 4: "<I", 16: "<Q"}[int(kind)]
        if kind == 3:
            pytest.skip("its count of bytes is a short number")
        struct.pack_into(form, content, where, value)
    path.write_bytes(bytes(content) + bomb)
    check(examine(path, "tiff"))


def test_a_huge_image_inside_a_small_strip_is_refused(tmp_path: Path, examine: Ask) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((64, 64), np.uint8), compression="jpeg", photometric="minisblack")
    content = path.read_bytes()
    assert content.count(struct.pack(">HH", 64, 64)) == 1
    path.write_bytes(content.replace(struct.pack(">HH", 64, 64), struct.pack(">HH", 65500, 65500)))
    found = examine(path, "tiff")
    check(found, ("refused",))
    assert "an image of 65500 x 65500 pixels inside a strip or tile" in found["text"]


def test_a_folder_of_images_larger_than_memory_is_refused(tmp_path: Path, examine: Ask) -> None:
    (tmp_path / "v").mkdir()
    for number in range(3):
        png(tmp_path / "v" / f"{number}.png", [100_000, 100_000], [])
    check(examine(tmp_path / "v", "sections"), ("refused",))


def test_the_writers_write_what_can_be_read(tmp_path: Path, examine: Ask) -> None:
    for name, writer in WRITERS.items():
        shape = [1, 10, 10] if name in ("tiff", "png") else [8, 64, 64]
        writer(tmp_path / name, shape, shape if name in ("tiff", "png") else [2, 32, 32])
        outcome = examine(tmp_path / name, name.partition("-")[0])
        # The PNG lacks the byte before each row: it is the one whose header alone is looked at.
        assert outcome["outcome"] == ("refused" if name == "png" else "read"), (name, outcome)
