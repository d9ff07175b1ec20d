from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numcodecs
import numpy as np
import pytest
import zarr
import zarr.codecs
from numpy.typing import NDArray

from emboundary.service.errors import InputError
from emboundary.service.volumes import open_volume

ARRAY = np.random.default_rng(0).integers(0, 256, (6, 40, 50), dtype=np.uint8)
PART = (slice(1, 4), slice(5, 33), slice(17, 50))


def dataset(scale: list[float], translation: list[float] | None = None) -> dict[str, Any]:
    moves = [] if translation is None else [{"type": "translation", "translation": translation}]
    return {"path": "s0", "coordinateTransformations": [{"type": "scale", "scale": scale}, *moves]}


def space(names: str, unit: str | None = "nanometer") -> list[dict[str, str]]:
    return [{"name": n, "type": "space"} | ({} if unit is None else {"unit": unit}) for n in names]


def write_image(path: Path, version: str, array: NDArray[Any], multiscale: dict[str, Any]) -> None:
    v2 = version == "0.4"
    group = zarr.create_group(path, zarr_format=2 if v2 else 3)
    group.create_array("s0", data=array, chunks=tuple(min(n, 16) for n in array.shape))
    attributes = {"multiscales": [multiscale | {"version": "0.4"}]}
    group.attrs.update(attributes if v2 else {"ome": {"version": "0.5", "multiscales": [multiscale]}})


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", ">u2", "float16", "float32", ">f4", "float64"])
def test_arrays_of_both_formats_and_all_types(tmp_path: Path, zarr_format: Any, dtype: str) -> None:
    array = ARRAY.astype(dtype)
    zarr.create_array(tmp_path / "a.zarr", data=array, chunks=(4, 16, 16), zarr_format=zarr_format)
    with open_volume(tmp_path / "a.zarr") as volume:
        assert (volume.shape, volume.chunks) == (array.shape, (4, 16, 16))
        assert volume.dtype == np.dtype(dtype).newbyteorder("=")
        assert volume.voxel_size_nm is None
        np.testing.assert_array_equal(volume[PART], array[PART])


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_an_image_brings_axes_units_and_origin(tmp_path: Path, version: str) -> None:
    multiscale = {
        "axes": space("zyx", "micrometer"),
        "datasets": [dataset([0.05, 0.004, 0.005], [1.0, 2.0, 3.0])],
        "coordinateTransformations": [{"type": "scale", "scale": [1.0, 2.0, 2.0]}],
    }
    write_image(tmp_path / "i.zarr", version, ARRAY, multiscale)
    with open_volume(tmp_path / "i.zarr") as volume:
        assert volume.voxel_size_nm == pytest.approx((50, 8, 10))
        assert [axis.origin for axis in volume.axes] == [1.0, 4.0, 6.0]
        assert [axis.unit for axis in volume.axes] == ["micrometer"] * 3
        np.testing.assert_array_equal(volume[PART], ARRAY[PART])


def test_single_channels_and_other_orders_are_found_by_name(tmp_path: Path) -> None:
    axes = [{"name": "t", "type": "time"}, {"name": "c", "type": "channel"}, *space("zyx")]
    write_image(tmp_path / "i.zarr", "0.5", ARRAY[None, None], {"axes": axes, "datasets": [dataset([1, 1, 50, 4, 5])]})
    with open_volume(tmp_path / "i.zarr") as volume:
        assert volume.chunks == (6, 16, 16)
        assert volume.voxel_size_nm == (50, 4, 5)
        np.testing.assert_array_equal(volume[PART], ARRAY[PART])


def test_dimension_names_of_plain_arrays_are_honoured(tmp_path: Path) -> None:
    turned = ARRAY.transpose(2, 1, 0)
    zarr.create_array(tmp_path / "a.zarr", data=turned, chunks=(8, 16, 2), dimension_names=["x", "y", "z"])
    with open_volume(tmp_path / "a.zarr") as volume:
        assert (volume.shape, volume.chunks) == (ARRAY.shape, (2, 16, 8))
        np.testing.assert_array_equal(volume[PART], ARRAY[PART])


def test_one_section_is_a_volume(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "a.zarr", data=ARRAY[0], chunks=(16, 16))
    with open_volume(tmp_path / "a.zarr") as volume:
        assert volume.shape == (1, 40, 50)
        np.testing.assert_array_equal(volume[0:1, 5:9, 7:50], ARRAY[:1, 5:9, 7:50])


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    """fsspec's file system in memory, emptied afterwards."""
    system = fsspec.filesystem("memory")
    yield system
    system.rm("/", recursive=True)


def test_urls_go_through_fsspec(tmp_path: Path, memory: fsspec.AbstractFileSystem) -> None:
    write_image(tmp_path / "i.zarr", "0.5", ARRAY, {"axes": space("zyx"), "datasets": [dataset([50, 4, 4])]})
    memory.put(str(tmp_path / "i.zarr"), "/remote.zarr", recursive=True)
    with open_volume("memory://remote.zarr") as volume:
        assert volume.voxel_size_nm == (50, 4, 4)
        np.testing.assert_array_equal(volume[PART], ARRAY[PART])


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_web_server_is_enough(tmp_path: Path, served: str, version: str) -> None:
    write_image(tmp_path / "i.zarr", version, ARRAY, {"axes": space("zyx"), "datasets": [dataset([50, 4, 4])]})
    with open_volume(f"{served}/i.zarr") as volume:
        np.testing.assert_array_equal(volume[PART], ARRAY[PART])
    with pytest.raises(InputError, match=f"{served}/j.zarr holds neither a Zarr array nor a Zarr group"):
        open_volume(f"{served}/j.zarr")


@pytest.mark.parametrize("url", ["memory://nothing.zarr", "nosuchscheme://host/a.zarr"])
def test_urls_without_an_array_are_refused(url: str) -> None:
    with pytest.raises(InputError, match=f"^{url} "):
        open_volume(url)


def test_a_folder_without_zarr_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds neither a Zarr array nor a Zarr group"):
        open_volume(tmp_path)


def test_a_plain_group_names_its_members(tmp_path: Path) -> None:
    group = zarr.create_group(tmp_path / "g.zarr")
    group.create_array("raw", data=ARRAY)
    with pytest.raises(InputError, match=r"group without an OME-Zarr image; give the path of one of its members: raw"):
        open_volume(tmp_path / "g.zarr")
    with open_volume(tmp_path / "g.zarr" / "raw") as volume:
        assert volume.shape == ARRAY.shape


def test_broken_image_metadata_are_named(tmp_path: Path) -> None:
    write_image(tmp_path / "i.zarr", "0.5", ARRAY, {"axes": space("zyx"), "datasets": [{"path": "s0"}]})
    with pytest.raises(
        InputError, match=r"no valid OME-Zarr 0\.4 or 0\.5 image: multiscales\.0\.datasets.*; give the path"
    ):
        open_volume(tmp_path / "i.zarr")


def test_a_missing_level_is_named(tmp_path: Path) -> None:
    write_image(
        tmp_path / "i.zarr", "0.5", ARRAY, {"axes": space("zyx"), "datasets": [dataset([1, 1, 1]) | {"path": "s1"}]}
    )
    with pytest.raises(InputError, match="names 's1' as its full resolution, but holds no such array"):
        open_volume(tmp_path / "i.zarr")


def test_more_channels_are_refused(tmp_path: Path) -> None:
    axes = [{"name": "c", "type": "channel"}, *space("zyx")]
    write_image(
        tmp_path / "i.zarr", "0.4", np.stack([ARRAY, ARRAY]), {"axes": axes, "datasets": [dataset([1, 1, 1, 1])]}
    )
    with pytest.raises(InputError, match=r"axis 'c' has 2: store one channel"):
        open_volume(tmp_path / "i.zarr")


@pytest.mark.parametrize("dtype", ["bool", "uint32", "int64", "complex64"])
def test_types_that_are_no_grey_value_are_refused(tmp_path: Path, dtype: str) -> None:
    zarr.create_array(tmp_path / "a.zarr", data=ARRAY.astype(dtype), chunks=(6, 40, 50))
    with pytest.raises(InputError, match=f"has voxels of type {dtype}; it must be one of uint8, int8, .*: convert it"):
        open_volume(tmp_path / "a.zarr")


def test_a_line_is_no_volume(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "a.zarr", data=ARRAY[0, 0])
    with pytest.raises(InputError, match=r"has shape \(50,\); it must be an image \(y, x\) or a stack"):
        open_volume(tmp_path / "a.zarr")


def test_damaged_metadata_are_refused(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "a.zarr", data=ARRAY)
    (tmp_path / "a.zarr" / "zarr.json").write_text('{"zarr_format": 3,')
    with pytest.raises(InputError, match="cannot be opened as Zarr"):
        open_volume(tmp_path / "a.zarr")


def test_a_truncated_chunk_is_refused_when_it_is_read(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "a.zarr", data=ARRAY, chunks=(6, 40, 50))
    (chunk,) = (path for path in (tmp_path / "a.zarr" / "c").rglob("*") if path.is_file())
    chunk.write_bytes(chunk.read_bytes()[:100])
    with (
        open_volume(tmp_path / "a.zarr") as volume,
        pytest.raises(InputError, match=r"cannot be read at 0:6,0:40,0:50: .*; it is damaged or truncated"),
    ):
        volume[0:6, 0:40, 0:50]


def test_the_place_of_nan_is_counted_from_the_origin(tmp_path: Path) -> None:
    array = ARRAY.astype(np.float32)
    array[3, 20, 30] = np.nan
    zarr.create_array(tmp_path / "a.zarr", data=array)
    with open_volume(tmp_path / "a.zarr") as volume:
        volume[0:3, 0:40, 0:50]
        with pytest.raises(InputError, match=r"holds nan at voxel \(z, y, x\) = \(3, 20, 30\)"):
            volume[2:5, 10:30, 17:40]


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_chunks_of_a_remote_array_that_grow_too_far_are_refused(
    memory: fsspec.AbstractFileSystem, tmp_path: Path, zarr_format: Any
) -> None:
    compressors = zarr.codecs.ZstdCodec() if zarr_format == 3 else numcodecs.Zstd()
    zarr.create_array(
        tmp_path / "a.zarr", data=ARRAY, chunks=(6, 40, 50), zarr_format=zarr_format, compressors=compressors
    )
    (chunk,) = (path for path in (tmp_path / "a.zarr").rglob("*") if path.is_file() and "0" in path.name)
    chunk.write_bytes(numcodecs.Zstd().encode(bytes(1 << 24)))
    memory.put(str(tmp_path / "a.zarr"), "/a.zarr", recursive=True)
    for where in (str(tmp_path / "a.zarr"), "memory://a.zarr"):
        with (
            open_volume(where) as volume,
            pytest.raises(InputError, match=r"a chunk decodes to more than \d+ bytes, far more than its shape says"),
        ):
            volume[0:1, 0:1, 0:1]
