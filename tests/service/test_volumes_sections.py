"""Folders with one image per section."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from emboundary.service.errors import InputError
from emboundary.service.volumes import open_volume, sections_input
from emboundary.service.volumes.sections_input import order_sections

ARRAY = np.random.default_rng(0).integers(0, 256, (12, 40, 50), dtype=np.uint8)
PART = (slice(1, 11), slice(5, 33), slice(17, 50))


def write(folder: Path, array: NDArray[Any], pattern: str = "s_{}.png", first: int = 0, **options: Any) -> None:
    """Write one image per section; the pattern's suffix says which kind."""
    folder.mkdir(exist_ok=True)
    for number, section in enumerate(array, first):
        path = folder / pattern.format(number)
        if path.suffix == ".png":
            path.write_bytes(imagecodecs.png_encode(section))
        else:
            tifffile.imwrite(path, section, **options)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("pattern", ["s_{}.png", "section.{:04}.TIF", "a1_z{}_b2.tiff", "{}.png"])
def test_sections_stand_in_the_order_of_their_numbers(tmp_path: Path, pattern: str, dtype: str) -> None:
    array = ARRAY.astype(dtype)
    write(tmp_path / "v", array, pattern, first=3)
    (tmp_path / "v" / "notes.txt").write_text("not an image")
    (tmp_path / "v" / ".hidden.png").touch()
    with open_volume(tmp_path / "v") as volume:
        assert (volume.shape, volume.dtype, volume.chunks) == (ARRAY.shape, np.dtype(dtype), (1, 40, 50))
        assert volume.voxel_size_nm is None
        np.testing.assert_array_equal(volume[PART], array[PART])
        np.testing.assert_array_equal(volume[11:12, 39:40, 49:50], array[11:, 39:, 49:])


@pytest.mark.parametrize("options", [{}, {"compression": "zlib", "rowsperstrip": 7}, {"tile": (16, 16)}])
@pytest.mark.parametrize("dtype", ["int16", ">u2", "float32"])
def test_sections_as_tiff_of_any_layout(tmp_path: Path, dtype: str, options: dict[str, Any]) -> None:
    array = ARRAY.astype(dtype)
    write(tmp_path / "v", array, "s{:03}.tif", **options, photometric="minisblack")
    with open_volume(tmp_path / "v") as volume:
        assert volume.dtype == np.dtype(dtype).newbyteorder("=")
        np.testing.assert_array_equal(volume[PART], array[PART])


def test_a_single_section_is_a_volume(tmp_path: Path) -> None:
    write(tmp_path / "v", ARRAY[:1], "only.png")
    with open_volume(tmp_path / "v") as volume:
        np.testing.assert_array_equal(volume[0:1, 0:40, 0:50], ARRAY[:1])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["s_1.png", "s_3.png"], r"has no section 2 between s_1\.png and s_3\.png; the numbers must be consecutive"),
        (["s_1.png", "s_01.png"], r"holds section 1 twice, as s_01\.png and s_1\.png; move one of them away"),
        (["s_1.tif", "s_1.tiff"], r"holds section 1 twice"),
        (["s_1.png", "t_2.png"], r"images named s_1\.png and t_2\.png; the names .* must differ in one number alone"),
        (["s_1.png", "overview.png"], r"must differ in one number alone, e\.g\. section_001\.png: rename"),
        (["a1_1.png", "a2_2.png"], r"names differ in 2 numbers, e\.g\. a1_1\.png and a2_2\.png; they must differ in"),
        (["s_1.png", "s_2.tif"], r"holds images of kinds PNG, TIFF; its sections must be all PNG or all TIFF: move"),
        (["s_1.png", "s_2.jpg"], r"holds images of kinds \.jpg, PNG; its sections"),
    ],
)
def test_names_that_leave_doubt_are_refused(names: list[str], message: str) -> None:
    for _ in range(3):
        random.shuffle(names)
        with pytest.raises(InputError, match=message):
            order_sections("v", names)


def test_other_shapes_and_types_are_refused_when_opened(tmp_path: Path) -> None:
    write(tmp_path / "v", ARRAY)
    (tmp_path / "v" / "s_5.png").write_bytes(imagecodecs.png_encode(ARRAY[0, :39]))
    with pytest.raises(InputError, match=r"s_5\.png has 39 x 50 pixels of uint8, but s_0\.png has 40 x 50 .*: crop or"):
        open_volume(tmp_path / "v")
    (tmp_path / "v" / "s_5.png").write_bytes(imagecodecs.png_encode(ARRAY[0].astype(np.uint16)))
    with pytest.raises(InputError, match=r"s_5\.png has 40 x 50 pixels of uint16, but s_0\.png has .* uint8; all"):
        open_volume(tmp_path / "v")


def test_stacks_and_colour_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "v", np.stack([ARRAY, ARRAY]), "s{}.tif", photometric="minisblack")
    with pytest.raises(
        InputError, match=r"s0\.tif has shape \(12, 40, 50\); each image of a folder must be one section"
    ):
        open_volume(tmp_path / "v")
    write(tmp_path / "w", np.zeros((2, 40, 50, 3), np.uint8), "s{}.png")
    with pytest.raises(InputError, match=r"s0\.png is a PNG of colour type 2 .*: convert it"):
        open_volume(tmp_path / "w")


def test_another_kind_under_a_wrong_name_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "v", ARRAY)
    (tmp_path / "v" / "s_5.png").write_bytes(b"II*\0" + bytes(100))
    with pytest.raises(InputError, match=r"s_5\.png is no PNG, whatever its name"):
        open_volume(tmp_path / "v")


def test_a_damaged_section_is_refused_when_it_is_read(tmp_path: Path) -> None:
    write(tmp_path / "v", ARRAY)
    damaged = tmp_path / "v" / "s_5.png"
    damaged.write_bytes(damaged.read_bytes()[:200])
    with open_volume(tmp_path / "v") as volume:
        np.testing.assert_array_equal(volume[0:5, 0:40, 0:50], ARRAY[:5])
        with pytest.raises(InputError, match=r"cannot be read at 4:7,0:40,0:50: \S*s_5\.png cannot be decoded as PNG"):
            volume[4:7, 0:40, 0:50]


def test_a_section_that_disappears_is_refused_when_it_is_read(tmp_path: Path) -> None:
    write(tmp_path / "v", ARRAY, "s{}.tif")
    with open_volume(tmp_path / "v") as volume:
        (tmp_path / "v" / "s5.tif").unlink()
        with pytest.raises(InputError, match=r"cannot be read at 5:6,.*s5\.tif"):
            volume[5:6, 0:40, 0:50]


def test_the_last_sections_are_kept_within_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "v", ARRAY)
    decoded = []
    decode_png = sections_input.decode_png
    monkeypatch.setattr(sections_input, "_CACHE_BYTES", 3 * ARRAY[0].nbytes)
    monkeypatch.setattr(
        sections_input, "decode_png", lambda where, file: decoded.append(where) or decode_png(where, file)
    )
    with open_volume(tmp_path / "v") as volume:
        for first in range(0, 40, 10):
            np.testing.assert_array_equal(volume[0:3, first : first + 10, 0:50], ARRAY[:3, first : first + 10])
        assert len(decoded) == 3
        volume[3:4, 0:1, 0:1]
        volume[0:1, 0:1, 0:1]  # the oldest made room
        assert len(decoded) == 5
        assert len(volume._source.array._kept) == 3  # type: ignore[attr-defined]


def test_threads_decode_a_section_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "v", ARRAY)
    decoded: list[str] = []
    both = threading.Barrier(4)
    decode_png = sections_input.decode_png
    monkeypatch.setattr(
        sections_input, "decode_png", lambda where, file: decoded.append(where) or decode_png(where, file)
    )

    def read(start: int) -> list[NDArray[Any]]:
        both.wait()
        return [volume[z % 12 : z % 12 + 1, 0:40, 0:50] for z in range(start, start + 12)]

    with open_volume(tmp_path / "v") as volume, ThreadPoolExecutor(4) as pool:
        for start, sections in enumerate(pool.map(read, range(4))):
            np.testing.assert_array_equal(np.concatenate(sections), np.roll(ARRAY, -start, axis=0))
    assert sorted(decoded) == sorted(set(decoded))
    assert len(decoded) == 12


def test_the_identity_follows_every_file(tmp_path: Path) -> None:
    write(tmp_path / "v", ARRAY)
    with open_volume(tmp_path / "v") as volume:
        before = volume.identity()
        assert volume.identity() == before
    changed = tmp_path / "v" / "s_7.png"
    changed.write_bytes(imagecodecs.png_encode(ARRAY[0]) + b"\0")
    with open_volume(tmp_path / "v") as volume:
        assert volume.identity() != before


def test_urls_of_folders(tmp_path: Path, served: str) -> None:
    write(tmp_path / "v", ARRAY, "s_{:02}.png")
    write(tmp_path / "w", ARRAY, "s{}.tif", compression="zlib", rowsperstrip=9)
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path / "v"), "/v", recursive=True)
    try:
        for url in (f"{served}/v", f"{served}/v/", f"{served}/w", "memory://v"):
            with open_volume(url) as volume:
                assert volume.shape == ARRAY.shape
                np.testing.assert_array_equal(volume[PART], ARRAY[PART])
    finally:
        memory.rm("/", recursive=True)
