"""HDF5, PNG, and paths that lead nowhere."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import Any

import h5py
import imagecodecs
import numpy as np
import pytest

from emboundary.service.errors import InputError
from emboundary.service.volumes import open_volume

ARRAY = np.random.default_rng(0).integers(0, 256, (6, 40, 50), dtype=np.uint8)
PART = (slice(1, 4), slice(5, 33), slice(17, 50))


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """An HDF5 file with a chunked dataset, one in a piece, one with names and sizes, and one that is empty."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("volumes/raw", data=ARRAY, chunks=(2, 16, 16), compression="gzip")
        file.create_dataset("whole", data=ARRAY.astype(np.float32))
        turned = file.create_dataset("named", data=ARRAY.transpose(2, 1, 0))
        for dimension, name in zip(turned.dims, "xyz", strict=True):
            dimension.label = name
        turned.attrs["element_size_um"] = [0.004, 0.005, 0.05]
        file.create_dataset("empty", data=h5py.Empty("f"))
        file.create_dataset("colour", data=ARRAY[:, :, :3].repeat(16, 0))
    return path


@pytest.mark.parametrize(
    ("inside", "chunks"), [("/volumes/raw", (2, 16, 16)), ("volumes/raw", (2, 16, 16)), ("/whole", (1, 40, 50))]
)
def test_datasets_are_named_after_two_colons(stored: Path, inside: str, chunks: tuple[int, int, int]) -> None:
    with open_volume(f"{stored}::{inside}") as volume:
        assert (volume.shape, volume.chunks) == (ARRAY.shape, chunks)
        np.testing.assert_array_equal(volume[PART], ARRAY[PART])


def test_labels_and_element_sizes_are_read(stored: Path) -> None:
    with open_volume(f"{stored}::/named") as volume:
        assert volume.shape == ARRAY.shape
        assert volume.voxel_size_nm == pytest.approx((50, 5, 4))
        np.testing.assert_array_equal(volume[PART], ARRAY[PART])


def test_a_file_without_a_dataset_lists_them(stored: Path) -> None:
    with pytest.raises(
        InputError, match=r"is an HDF5 file: name a dataset .*::/NAME; it holds /colour, .*/volumes/raw"
    ):
        open_volume(stored)


@pytest.mark.parametrize("inside", ["/nothing", "", "/volumes", "/empty"])
def test_a_name_that_is_no_dataset_is_refused(stored: Path, inside: str) -> None:
    with pytest.raises(InputError, match=rf"holds no dataset '{inside}'; it holds /colour"):
        open_volume(f"{stored}::{inside}")


def test_colour_in_hdf5_is_refused(stored: Path) -> None:
    with pytest.raises(InputError, match="looks like a colour image"):
        open_volume(f"{stored}::/colour")


def test_a_truncated_hdf5_file_is_refused(stored: Path) -> None:
    stored.write_bytes(stored.read_bytes()[:3000])
    with pytest.raises(InputError, match="cannot be opened as HDF5"):
        open_volume(f"{stored}::/volumes/raw")


def test_a_missing_hdf5_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.h5 does not exist; check the path"):
        open_volume(f"{tmp_path}/a.h5::/raw")


def test_voxels_in_another_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(ARRAY.tobytes())
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset(
            "raw", shape=ARRAY.shape, dtype="uint8", external=[(str(tmp_path / "other"), 0, ARRAY.size)]
        )
    with pytest.raises(
        InputError, match=r"keeps its voxels in another file, '\S*other'; they must be in the file itself"
    ):
        open_volume(f"{tmp_path}/a.h5::/raw")


def test_a_filter_that_is_not_installed_is_named(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((2, 16, 16))
        plist.set_filter(32001, h5py.h5z.FLAG_OPTIONAL)
        space = h5py.h5s.create_simple(ARRAY.shape)
        h5py.h5d.create(file.id, b"raw", h5py.h5t.NATIVE_UINT8, space, plist)
    with pytest.raises(InputError, match=r"is compressed with filter 32001 .*: rewrite it with h5repack -f GZIP=4"):
        open_volume(f"{tmp_path}/a.h5::/raw")


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_a_png_is_one_section(tmp_path: Path, dtype: str) -> None:
    image = ARRAY[0].astype(dtype) * np.dtype(dtype).type(1 if dtype == "uint8" else 257)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(image))
    with open_volume(tmp_path / "a.png") as volume:
        assert (volume.shape, volume.dtype) == ((1, 40, 50), np.dtype(dtype))
        np.testing.assert_array_equal(volume[0:1, 5:9, 7:50], image[None, 5:9, 7:50])


@pytest.mark.parametrize(("channels", "kind"), [(2, 4), (3, 2), (4, 6)])
def test_a_png_with_colour_or_alpha_is_refused(tmp_path: Path, channels: int, kind: int) -> None:
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(np.zeros((20, 30, channels), np.uint8)))
    with pytest.raises(InputError, match=rf"PNG of colour type {kind} with 8 bits; it must be grey \(type 0\)"):
        open_volume(tmp_path / "a.png")


@pytest.mark.parametrize("left", [8, 30, 60, 500])
def test_a_truncated_png_is_refused(tmp_path: Path, left: int) -> None:
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(ARRAY[0])[:left])
    with pytest.raises(InputError, match=r"a\.png .*copy or export it again"):
        open_volume(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["a.tif", "a.zarr", "a.png", "a.h5"])
def test_a_missing_path_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=f"{name} does not exist; check the path"):
        open_volume(tmp_path / name)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tif").touch()
    with pytest.raises(InputError, match=r"a\.tif is empty \(0 bytes\)"):
        open_volume(tmp_path / "a.tif")


@pytest.mark.parametrize("content", [b"\xff\xd8\xff\xe0 a JPEG", b"text"])
def test_another_format_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(InputError, match="is no format that can be read here; it must be a Zarr folder, a TIFF stack"):
        open_volume(tmp_path / "a.tif")


def test_an_unreadable_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(b"II*\0")
    path.chmod(0)
    if os.access(path, os.R_OK):  # root may read everything

        def refuse(*_: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputError, match=r"a\.tif cannot be read: Permission denied; check its permissions"):
        open_volume(path)


FILTERS = [{}, {"compression": "gzip"}, {"compression": "lzf"}, {"shuffle": True}, {"fletcher32": True}]


@pytest.mark.parametrize("dtype", ["uint8", "<u2", ">i2", "float16", ">f4", "float64"])
@pytest.mark.parametrize("options", [*FILTERS, {"compression": "gzip", "shuffle": True, "fletcher32": True}])
def test_chunks_of_all_filters_and_types(tmp_path: Path, options: dict[str, Any], dtype: str) -> None:
    array = ARRAY.astype(dtype)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        dataset = file.create_dataset("raw", shape=ARRAY.shape, dtype=dtype, chunks=(4, 16, 32), fillvalue=3, **options)
        dataset[:, :32] = array[:, :32]
    array[:, 32:] = 3  # never written
    with open_volume(f"{tmp_path}/a.h5::/raw") as volume:
        for part in (PART, (slice(0, 6), slice(0, 40), slice(0, 50)), (slice(5, 6), slice(39, 40), slice(49, 50))):
            np.testing.assert_array_equal(volume[part], array[part])
        assert volume[2:2, 0:5, 0:5].shape == (0, 5, 5)


def test_unusual_numbers_of_bits_are_converted(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        stored = h5py.h5t.STD_U16LE.copy()
        stored.set_precision(12)
        stored.set_offset(4)
        space = h5py.h5s.create_simple(ARRAY.shape)
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((2, 16, 16))
        dataset = h5py.Dataset(h5py.h5d.create(file.id, b"raw", stored, space, plist))
        dataset[...] = ARRAY.astype(np.uint16) * 16
    with open_volume(f"{tmp_path}/a.h5::/raw") as volume:
        np.testing.assert_array_equal(volume[PART], ARRAY[PART].astype(np.uint16) * 16)


@pytest.mark.parametrize("content", [b"x", zlib.compress(bytes(1023)), zlib.compress(bytes(1025))])
def test_chunks_that_decode_to_another_size_are_refused(tmp_path: Path, content: bytes) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        dataset = file.create_dataset("raw", shape=(2, 32, 32), dtype="uint8", chunks=(1, 32, 32), compression="gzip")
        dataset[0] = 7
        dataset.id.write_direct_chunk((1, 0, 0), content)
    with open_volume(f"{tmp_path}/a.h5::/raw") as volume:
        assert (volume[0:1, 0:32, 0:32] == 7).all()
        with pytest.raises(InputError, match=r"cannot be read at 0:2,.*: .*; it is damaged or truncated: copy"):
            volume[0:2, 0:32, 0:32]


def test_a_chunk_of_no_bytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("raw", shape=(1, 32, 32), dtype="uint8", chunks=(1, 32, 32), compression="gzip")
        dataset.id.write_direct_chunk((0, 0, 0), bytes(777))
    size_and_mask = struct.pack("<II", 777, 0)
    content = path.read_bytes()
    assert content.count(size_and_mask) == 1
    path.write_bytes(content.replace(size_and_mask, bytes(8)))
    with (
        open_volume(f"{path}::/raw") as volume,
        pytest.raises(InputError, match=r"the chunk at \(0, 0, 0\) has 0 bytes"),
    ):
        volume[0:1, 0:32, 0:32]  # libhdf5 crashes


def test_a_skipped_filter_is_skipped(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        dataset = file.create_dataset("raw", shape=(1, 32, 32), dtype="uint8", chunks=(1, 32, 32), compression="gzip")
        dataset.id.write_direct_chunk((0, 0, 0), bytes(range(256)) * 4, filter_mask=1)
    with open_volume(f"{tmp_path}/a.h5::/raw") as volume:
        assert volume[0:1, 0:32, 0:32].tobytes() == bytes(range(256)) * 4
