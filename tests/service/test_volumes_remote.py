"""Single files behind URLs, and what tells that a volume is the same when a run goes on."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import h5py
import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr

from emboundary.service.errors import InputError, UsageError
from emboundary.service.volumes import open_volume

ARRAY = np.random.default_rng(0).integers(0, 256, (6, 140, 150), dtype=np.uint8)
PART = (slice(1, 4), slice(5, 133), slice(17, 150))


def write_hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("raw", data=ARRAY, chunks=(2, 16, 16), compression="gzip", fillvalue=7)


def write_tiff(path: Path) -> None:
    tifffile.imwrite(path, ARRAY, compression="zlib", rowsperstrip=16, photometric="minisblack")


def write_plain_tiff(path: Path) -> None:
    tifffile.imwrite(path, ARRAY, imagej=True, metadata={"axes": "ZYX", "spacing": 0.05, "unit": "micron"})


def write_png(path: Path) -> None:
    path.write_bytes(imagecodecs.png_encode(ARRAY[0]))


FILES: dict[str, Callable[[Path], None]] = {
    "a.h5::/raw": write_hdf5,
    "a.tif": write_tiff,
    "plain.tif": write_plain_tiff,
    "a.png": write_png,
}


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    """fsspec's file system in memory, emptied afterwards."""
    system = fsspec.filesystem("memory")
    yield system
    system.rm("/", recursive=True)


@pytest.mark.parametrize("name", FILES)
def test_files_on_a_web_server(tmp_path: Path, served: str, name: str) -> None:
    FILES[name](tmp_path / name.partition("::")[0])
    with open_volume(f"{served}/{name}") as volume, ThreadPoolExecutor(3) as pool:
        expected = ARRAY[: volume.shape[0]]
        assert volume.shape == expected.shape
        part = (slice(0, 1), *PART[1:]) if name == "a.png" else PART
        for block in pool.map(volume.__getitem__, [part] * 6):
            np.testing.assert_array_equal(block, expected[part])
        identity = volume.identity()
        assert identity["size"] == (tmp_path / name.partition("::")[0]).stat().st_size


@pytest.mark.parametrize("name", FILES)
def test_files_in_memory(tmp_path: Path, memory: fsspec.AbstractFileSystem, name: str) -> None:
    file = name.partition("::")[0]
    FILES[name](tmp_path / file)
    memory.put(str(tmp_path / file), f"/{file}")
    with open_volume(f"memory://{name}") as volume:
        np.testing.assert_array_equal(volume[0:1, 3:90, 7:80], ARRAY[0:1, 3:90, 7:80])


@pytest.mark.parametrize("name", ["a.h5::/raw", "a.tif", "plain.tif"])
def test_a_server_that_gives_no_parts_is_refused(tmp_path: Path, served_whole: str, name: str) -> None:
    FILES[name](tmp_path / name.partition("::")[0])
    with pytest.raises(InputError, match="server that gives no parts of a file; download the file first"):
        open_volume(f"{served_whole}/{name}")


def test_a_png_needs_no_parts(tmp_path: Path, served_whole: str) -> None:
    write_png(tmp_path / "a.png")
    with open_volume(f"{served_whole}/a.png") as volume:
        np.testing.assert_array_equal(volume[0:1, 0:140, 0:150], ARRAY[:1])


def test_a_remote_hdf5_file_without_a_dataset_lists_them(tmp_path: Path, served: str) -> None:
    write_hdf5(tmp_path / "a.h5")
    with pytest.raises(InputError, match=r"name a dataset inside it as http\S+/a\.h5::/NAME; it holds /raw"):
        open_volume(f"{served}/a.h5")


@pytest.mark.parametrize("name", ["a.tif", "a.h5::/raw", "a.zarr", "folder/"])
def test_nothing_there_is_refused(served: str, name: str) -> None:
    with pytest.raises(InputError, match=r"does not exist|holds neither"):
        open_volume(f"{served}/{name}")


def test_a_server_that_cannot_be_reached_is_named() -> None:
    with pytest.raises(InputError, match=r"^http://127\.0\.0\.1:9/a\.tif.* cannot be read: .*; check the URL"):
        open_volume("http://127.0.0.1:9/a.tif")


@pytest.mark.parametrize(("scheme", "package", "extra"), [("s3", "s3fs", "s3"), ("gs", "gcsfs", "gs")])
def test_a_missing_package_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, scheme: str, package: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    message = rf"{scheme}:// needs the package {package}, which is not installed: pip install 'emboundary\[{extra}\]'"
    with pytest.raises(InputError, match=message):
        open_volume(f"{scheme}://bucket/a.zarr")


@pytest.mark.parametrize("name", FILES)
def test_the_identity_of_a_file_is_its_size_and_time(tmp_path: Path, name: str) -> None:
    file = tmp_path / name.partition("::")[0]
    FILES[name](file)
    with open_volume(tmp_path / name) as volume:
        before = volume.identity()
        assert before["where"] == str(tmp_path / name)
        assert json.loads(json.dumps(before)) == before
        assert (before["shape"], before["dtype"]) == (list(volume.shape), "uint8")
    os.utime(file, ns=(0, 1))
    with open_volume(tmp_path / name) as volume:
        assert volume.identity() == before | {"mtime_ns": 1}
    with open_volume(tmp_path / name, voxel_size_nm=(50, 4, 4)) as volume:
        assert volume.identity() != before | {"mtime_ns": 1}


def test_the_identity_of_a_zarr_image_follows_its_metadata(tmp_path: Path) -> None:
    def identity(**attributes: Any) -> dict[str, Any]:
        zarr.open_array(tmp_path / "a.zarr", mode="r+").attrs.update(attributes)
        with open_volume(tmp_path / "a.zarr") as volume:
            return volume.identity()

    zarr.create_array(tmp_path / "a.zarr", data=ARRAY)
    assert identity(a=1) == identity(a=1) != identity(a=2)


def test_the_identity_names_an_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiff(tmp_path / "a.tif")
    monkeypatch.chdir(tmp_path)
    with open_volume("a.tif") as volume:
        assert volume.identity()["where"] == str(tmp_path / "a.tif")


def test_fill_values_are_those_that_the_file_declares(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "a.h5")
    zarr.create_array(tmp_path / "v3.zarr", shape=(4, 4, 4), dtype="uint16", fill_value=300)
    zarr.create_array(tmp_path / "v2.zarr", shape=(4, 4, 4), dtype="int16", fill_value=-3, zarr_format=2)
    zarr.create_array(tmp_path / "nan.zarr", data=np.zeros((4, 4, 4), np.float32), fill_value=np.nan)
    write_tiff(tmp_path / "a.tif")
    for name, fill in [("a.h5::/raw", 7), ("v3.zarr", 300), ("v2.zarr", -3), ("nan.zarr", 0), ("a.tif", 0)]:
        with open_volume(tmp_path / name) as volume:
            assert volume.fill_value == fill


@pytest.mark.parametrize("size", [(50.0, 4.6, 0.0), (50.0, -4.6, 4.6), (50.0, 4.6, float("nan")), (float("inf"), 1, 1)])
def test_a_voxel_size_must_be_three_numbers_above_0(tmp_path: Path, size: tuple[float, float, float]) -> None:
    write_png(tmp_path / "a.png")
    with pytest.raises(
        UsageError, match=r"voxel size is .*; it must be three finite numbers above 0, .* e\.g\. 50,4\.6"
    ):
        open_volume(tmp_path / "a.png", voxel_size_nm=size)


@pytest.mark.parametrize("size", [0.0, -1.0, float("nan"), float("inf")])
def test_a_senseless_size_in_the_file_is_refused_until_one_is_told(tmp_path: Path, size: float) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("raw", data=ARRAY).attrs["element_size_um"] = [size, 1, 1]
    with pytest.raises(
        InputError, match=r"gives axis z a voxel size of .*; they must be finite, the size above 0: mend"
    ):
        open_volume(f"{tmp_path}/a.h5::/raw")
    with open_volume(f"{tmp_path}/a.h5::/raw", voxel_size_nm=(50, 4, 4)) as volume:
        assert volume.voxel_size_nm == (50, 4, 4)
        assert all(np.isfinite(axis.origin) for axis in volume.axes)


def test_a_voxel_size_that_is_told_overrides_the_file(tmp_path: Path) -> None:
    write_plain_tiff(tmp_path / "a.tif")
    with open_volume(tmp_path / "a.tif", voxel_size_nm=(30, 8, 9)) as volume:
        assert volume.voxel_size_nm == (30, 8, 9)
        assert [axis.unit for axis in volume.axes] == ["nanometer"] * 3
