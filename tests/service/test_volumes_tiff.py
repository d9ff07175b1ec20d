from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from emboundary.service.errors import InputError
from emboundary.service.volumes import open_volume

ARRAY = np.random.default_rng(0).integers(0, 256, (6, 75, 91), dtype=np.uint8)
PART = (slice(1, 4), slice(5, 70), slice(17, 91))

LAYOUTS: dict[str, dict[str, Any]] = {
    "one piece": {},
    "one piece, big-endian": {"byteorder": ">"},
    "BigTIFF": {"bigtiff": True},
    "strips": {"compression": "zlib", "rowsperstrip": 16},
    "strips, predictor": {"compression": "zlib", "rowsperstrip": 10, "predictor": True},
    "pages": {"compression": "lzw", "rowsperstrip": 75},
    "tiles": {"tile": (16, 32), "compression": "zstd"},
    "tiles, uncompressed": {"tile": (32, 16)},
}


def check(path: Path, array: NDArray[Any], axes: str | None = None) -> None:
    with open_volume(path, axes=axes) as volume:
        assert volume.shape == array.shape
        assert volume.dtype == array.dtype.newbyteorder("=")
        np.testing.assert_array_equal(volume[PART], array[PART])
        np.testing.assert_array_equal(volume[0:1, 74:75, 90:91], array[:1, 74:, 90:])
        np.testing.assert_array_equal(volume[0:6, 0:75, 0:91], array)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float16", "float32", "float64"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_part_of_any_layout(tmp_path: Path, layout: str, dtype: str) -> None:
    array = ARRAY.astype(dtype)
    if layout == "strips, predictor" and dtype.startswith("float"):
        options = LAYOUTS[layout] | {"predictor": tifffile.PREDICTOR.FLOATINGPOINT}
    else:
        options = LAYOUTS[layout]
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack", **options)
    check(tmp_path / "a.tif", array)


@pytest.mark.parametrize("compression", [None, "zlib", "jpeg"])
def test_pages_written_one_by_one(tmp_path: Path, compression: str | None) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for section in ARRAY:
            writer.write(section, contiguous=False, compression=compression, metadata=None)
    check(tmp_path / "a.tif", tifffile.imread(tmp_path / "a.tif"))


def test_imagej_stacks_bring_their_voxel_size(tmp_path: Path) -> None:
    metadata = {"axes": "ZYX", "spacing": 0.05, "unit": "micron"}
    tifffile.imwrite(tmp_path / "a.tif", ARRAY, imagej=True, metadata=metadata, resolution=(250, 200))
    check(tmp_path / "a.tif", ARRAY)
    with open_volume(tmp_path / "a.tif") as volume:
        assert volume.voxel_size_nm == pytest.approx((50, 5, 4))


def test_imagej_stacks_with_sections_called_channels_are_refused_until_told(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", ARRAY, imagej=True, metadata={"axes": "CYX"})
    with pytest.raises(
        InputError, match=r"axis 'c' has 6: store one channel .*, or give --axes if the names are wrong"
    ):
        open_volume(tmp_path / "a.tif")
    check(tmp_path / "a.tif", ARRAY, axes="zyx")


def test_ome_stacks_bring_their_voxel_size(tmp_path: Path) -> None:
    metadata = {"axes": "ZYX", "PhysicalSizeX": 4.0, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.005}
    tifffile.imwrite(tmp_path / "a.ome.tif", ARRAY, metadata=metadata | {"PhysicalSizeZ": 0.05})
    check(tmp_path / "a.ome.tif", ARRAY)
    with open_volume(tmp_path / "a.ome.tif") as volume:
        assert volume.voxel_size_nm == pytest.approx((50, 5, 4))


def test_dots_per_inch_are_no_voxel_size(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", ARRAY, resolution=(72, 72), resolutionunit="INCH", photometric="minisblack")
    with open_volume(tmp_path / "a.tif") as volume:
        assert volume.voxel_size_nm is None


def test_one_image_is_one_section(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", ARRAY[0], compression="zlib")
    with open_volume(tmp_path / "a.tif") as volume:
        assert volume.shape == (1, 75, 91)
        np.testing.assert_array_equal(volume[0:1, 3:60, 4:80], ARRAY[:1, 3:60, 4:80])


def test_decoded_parts_are_kept_within_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tifffile.imwrite(tmp_path / "a.tif", ARRAY, compression="zlib", rowsperstrip=25, photometric="minisblack")
    strip = 25 * 91
    monkeypatch.setattr("emboundary.service.volumes.tiff_input._CACHE_BYTES", 4 * strip)
    with open_volume(tmp_path / "a.tif") as volume:
        segments: Any = volume._source.array
        for _ in range(2):
            np.testing.assert_array_equal(volume[0:6, 0:75, 0:91], ARRAY)
        assert len(segments._kept) == 4
        assert segments._kept_bytes == sum(part.nbytes for part in segments._kept.values())


def test_a_kept_part_is_not_decoded_again(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", ARRAY, compression="zlib", rowsperstrip=75, photometric="minisblack")
    with open_volume(tmp_path / "a.tif") as volume:
        volume[0:1, 0:10, 0:10]
        segments: Any = volume._source.array
        (kept,) = segments._kept.values()
        volume[0:1, 40:60, 50:80]
        assert next(iter(segments._kept.values())) is kept


@pytest.mark.parametrize("layout", ["one piece", "BigTIFF", "strips", "pages", "tiles"])
@pytest.mark.parametrize("left", [0.03, 0.3, 0.6, 0.9, 0.99])
def test_a_truncated_stack_is_refused(tmp_path: Path, layout: str, left: float) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, ARRAY, photometric="minisblack", **LAYOUTS[layout])
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * left)])
    with pytest.raises(InputError, match=r"(truncated|damaged TIFF|cannot be read as TIFF).*copy"):
        open_volume(path)


@pytest.mark.parametrize("options", [{"imagej": True, "metadata": {"axes": "ZYX"}}, {"ome": True}, {"metadata": None}])
@pytest.mark.parametrize("left", [0.4, 0.8])
def test_a_truncated_stack_of_any_kind_is_refused(tmp_path: Path, options: dict[str, Any], left: float) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, ARRAY, photometric="minisblack", **options)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * left)])
    with pytest.raises(InputError, match=r"(truncated|damaged TIFF|cannot be read as TIFF).*copy"):
        open_volume(path)


def test_a_damaged_strip_is_refused_when_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, ARRAY, compression="zlib", rowsperstrip=75, photometric="minisblack")
    with tifffile.TiffFile(path) as file:
        offset, count = file.pages[2].dataoffsets[0], file.pages[2].databytecounts[0]
    content = bytearray(path.read_bytes())
    content[offset : offset + count] = bytes(count)
    path.write_bytes(content)
    with open_volume(path) as volume:
        volume[0:2, 0:75, 0:91]
        with pytest.raises(InputError, match=r"cannot be read at 1:4,0:75,0:91: .*damaged or truncated"):
            volume[1:4, 0:75, 0:91]


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_colour_is_refused(tmp_path: Path, planar: str, compression: str | None) -> None:
    shape = (2, 40, 50, 3) if planar == "contig" else (2, 3, 40, 50)
    tifffile.imwrite(
        tmp_path / "a.tif", np.zeros(shape, np.uint8), photometric="rgb", planarconfig=planar, compression=compression
    )
    with pytest.raises(
        InputError, match=r"stores its voxels as RGB .*must be single grey values \(MINISBLACK\): convert"
    ):
        open_volume(tmp_path / "a.tif")


def test_inverted_grey_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", ARRAY, photometric="miniswhite")
    with pytest.raises(InputError, match="MINISWHITE"):
        open_volume(tmp_path / "a.tif")


def test_four_axes_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.stack([ARRAY, ARRAY]), photometric="minisblack")
    with pytest.raises(
        InputError, match=r"has shape \(2, 6, 75, 91\) and its axes are not named: name them with --axes"
    ):
        open_volume(tmp_path / "a.tif")


def test_complex_values_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", ARRAY.astype(np.complex64), photometric="minisblack")
    with pytest.raises(InputError, match="has voxels of type complex64"):
        open_volume(tmp_path / "a.tif")


def test_images_of_different_shapes_are_refused(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(ARRAY[0], metadata=None)
        writer.write(ARRAY[0, :40], metadata=None)
    with pytest.raises(InputError, match=r"holds 2 images of shapes \(75, 91\), \(40, 91\); store one stack per file"):
        open_volume(tmp_path / "a.tif")


@pytest.mark.parametrize("columns", [slice(0, 30_000), slice(100, 29_000), slice(29_990, 30_000)])
def test_parts_of_wide_pages(tmp_path: Path, columns: slice) -> None:
    array = np.random.default_rng(0).integers(0, 1 << 16, (3, 5, 30_000), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack", byteorder=">")
    with open_volume(tmp_path / "a.tif") as volume:
        np.testing.assert_array_equal(volume[1:3, 2:5, columns], array[1:3, 2:5, columns])
        assert volume[1:1, 2:5, columns].size == 0


def test_a_stack_that_shrinks_while_it_is_read_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", ARRAY, photometric="minisblack")
    with open_volume(tmp_path / "a.tif") as volume:
        with (tmp_path / "a.tif").open("r+b") as file:
            file.truncate(5000)
        with pytest.raises(InputError, match=r"cannot be read at 1:4,.*: the file ends \d+ bytes before the end of a"):
            volume[PART]


def test_threads_read_a_stack_at_once(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", ARRAY, compression="zlib", rowsperstrip=8, photometric="minisblack")
    with open_volume(tmp_path / "a.tif") as volume, ThreadPoolExecutor(4) as pool:
        parts = [(slice(z, z + 1), slice(y, y + 20), slice(0, 91)) for z in range(6) for y in range(0, 55, 5)] * 4
        for part, block in zip(parts, pool.map(volume.__getitem__, parts), strict=True):
            np.testing.assert_array_equal(block, ARRAY[part])
