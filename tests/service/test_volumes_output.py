"""Every format behaves alike: any order of blocks, any interruption, the same bytes."""

from __future__ import annotations

import errno
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from emboundary.model.geometry import BlockGrid, Box, Triple
from emboundary.service.errors import OutputError, UsageError
from emboundary.service.volumes import Dtype, MapSpec, Output, check_output, open_map, open_volume, plan_levels
from emboundary.service.volumes.axes import Axis, SpaceAxes

SHAPE = (3, 70, 90)
MAP = np.random.default_rng(0).random(SHAPE, dtype=np.float32)
AXES: SpaceAxes = (
    Axis("z", 50.0, "nanometer", 100.0),
    Axis("y", 4.5, "nanometer"),
    Axis("x", 4.6, "nanometer", -2.0),
)
PROVENANCE = {"model": "d4", "intensity": [1.5, 2.5]}
FINAL = {**PROVENANCE, "missing": ["0:1,0:32,0:32"] * 20}
ENDINGS = (".zarr", ".tif", ".h5", ".png")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def content(path: Path) -> dict[str, bytes]:
    """Every file of a map, by its name."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


def shape_for(ending: str) -> Triple:
    return (1, 70, 90) if ending == ".png" else SHAPE


def spec(ending: str = ".zarr", dtype: Dtype = "uint8", axes: SpaceAxes = AXES) -> MapSpec:
    shape = shape_for(ending)
    return MapSpec(shape, dtype, axes, PROVENANCE, plan_levels(shape, axes, (1, 32, 32), None, pyramid=False))


def blocks(ending: str) -> list[Box]:
    depth = 1 if ending == ".png" else 2
    return list(BlockGrid(Box.of_shape(shape_for(ending)), (depth, 64, 32)))


def expected(dtype: Dtype = "uint8", ending: str = ".zarr") -> np.ndarray[Any, Any]:
    value = MAP[: shape_for(ending)[0]]
    return np.rint(value * np.float32(255)).astype(np.uint8) if dtype == "uint8" else value.astype(dtype)


def store(data: Path, dtype: Dtype = "uint8", order: Callable[[list[Box]], list[Box]] = list) -> None:
    """Write a whole map without interruption."""
    output = open_map(data, spec(data.suffix, dtype), resume=False)
    for box in order(blocks(data.suffix)):
        output.write(box, expected(dtype, data.suffix)[box.slices])
    output.finish(FINAL)


def where(path: Path) -> str:
    """What names the map to our own reader."""
    return f"{path}::/boundary" if path.suffix in (".h5", ".hdf5") else str(path)


def read(path: Path) -> np.ndarray[Any, Any]:
    with open_volume(where(path)) as volume:
        z, y, x = volume.shape
        return volume[0:z, 0:y, 0:x]


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
@pytest.mark.parametrize("name", ["a.zarr", "a.tif", "a.tiff", "a.h5", "a.hdf5"])
def test_what_was_written_comes_back(tmp_path: Path, name: str, dtype: Dtype) -> None:
    store(tmp_path / name, dtype)
    with open_volume(where(tmp_path / name)) as volume:
        assert volume.voxel_size_nm == pytest.approx((50, 4.5, 4.6))
        assert [axis.name for axis in volume.axes] == ["z", "y", "x"]
        assert volume.dtype == dtype
        np.testing.assert_array_equal(volume[0:3, 0:70, 0:90], expected(dtype))


def read_elsewhere(path: Path) -> np.ndarray[Any, Any]:
    """The map as the library of its format reads it."""
    if path.suffix == ".zarr":
        array = zarr.open_group(path, mode="r")["0"]
        assert isinstance(array, zarr.Array)
        return np.asarray(array[:])
    if path.suffix == ".h5":
        with h5py.File(path) as file:
            return np.asarray(file["boundary"][:])
    if path.suffix == ".png":
        return np.asarray(Image.open(path))[None]
    return np.asarray(tifffile.imread(path))


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_library_of_the_format_reads_it(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    store(path)
    np.testing.assert_array_equal(read_elsewhere(path), expected("uint8", ending))


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_was_written_can_be_read_before_the_end(tmp_path: Path, ending: str) -> None:
    with open_map(tmp_path / f"a{ending}", spec(ending), resume=False) as output:
        first, second = blocks(ending)[:2]
        output.write(first, expected("uint8", ending)[first.slices])
        np.testing.assert_array_equal(output.read(first), expected("uint8", ending)[first.slices])
        assert not output.read(second).any()
        inner = Box((0, 3, 5), (1, 50, 31))
        np.testing.assert_array_equal(output.read(inner), expected("uint8", ending)[inner.slices])


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_the_bytes_do_not_depend_on_order_or_interruptions(tmp_path: Path, ending: str, dtype: Dtype) -> None:
    if ending == ".png" and dtype != "uint8":
        return
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    store(tmp_path / "1" / f"a{ending}", dtype)
    data = tmp_path / "2" / f"a{ending}"
    open_map(data, spec(ending, dtype), resume=False).close()
    for box in reversed(blocks(ending)):
        output = open_map(data, spec(ending, dtype), resume=True)
        for _ in range(2):  # a block that was stored and not yet noted as done is stored again
            output.write(box, expected(dtype, ending)[box.slices])
        output.flush()
        output.close()
    # Finished, and killed before that was noted, with a provenance of another length.
    open_map(data, spec(ending, dtype), resume=True).finish({"a": "b" * 5000})
    open_map(data, spec(ending, dtype), resume=True).finish({})
    open_map(data, spec(ending, dtype), resume=True).finish(FINAL)
    assert content(data) == content(tmp_path / "1" / f"a{ending}")


@pytest.mark.parametrize("ending", ENDINGS)
def test_threads_may_write_at_once(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    with open_map(path, spec(ending), resume=False) as output, ThreadPoolExecutor(4) as threads:
        value = expected("uint8", ending)
        list(threads.map(lambda box: output.write(box, value[box.slices]), blocks(ending)))
        output.finish(FINAL)
    np.testing.assert_array_equal(read(path), value)


# Writers are forked from a process that has imported everything and started no thread, and killed from there.
KILLING = """
import os, random, signal, sys, time
from pathlib import Path
import numpy as np
from emboundary.model.geometry import BlockGrid, Box
from emboundary.service.volumes import MapSpec, open_map, plan_levels

ending, folder = sys.argv[1], Path(sys.argv[2])
shape = (1 if ending == ".png" else 3, 70, 90)
shard = (1, 64, 64) if ending == ".zarr" else None
spec = MapSpec(shape, levels=plan_levels(shape, MapSpec(shape).axes, (1, 32, 32), shard, pyramid=False))
value = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)

def write(data, resume, times, begun):
    output = open_map(data, spec, resume=resume)
    os.write(begun, b"!")
    for _ in range(times):
        for box in BlockGrid(Box.of_shape(shape), (1, 64, 64)):
            output.write(box, value[box.slices])
        output.finish({"how": "killed"})
        output = open_map(data, spec, resume=True)

def child(*arguments):
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            write(*arguments, writing)
            os._exit(0)
        finally:
            os._exit(1)
    os.close(writing)
    assert os.read(reading, 1) == b"!"
    os.close(reading)
    return pid

def finish(*arguments):
    assert os.waitpid(child(*arguments), 0)[1] == 0

chance = random.Random(ending)
finish(folder / "1" / f"a{ending}", False, 1)
for number in range(int(sys.argv[3])):
    pid = child(folder / "2" / f"a{ending}", number > 0, 1_000_000)
    time.sleep(chance.uniform(0, 0.05))
    os.kill(pid, signal.SIGKILL)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
finish(folder / "2" / f"a{ending}", True, 1)
"""


@pytest.mark.parametrize("ending", ENDINGS)
def test_killed_while_writing_or_finishing(tmp_path: Path, ending: str) -> None:
    for folder in "12":
        (tmp_path / folder).mkdir()
    subprocess.run([sys.executable, "-c", KILLING, ending, str(tmp_path), "8"], check=True, timeout=120)
    assert content(tmp_path / "2" / f"a{ending}") == content(tmp_path / "1" / f"a{ending}")


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_an_earlier_run_left_is_removed_by_a_new_one(tmp_path: Path, ending: str) -> None:
    for folder in "12":
        (tmp_path / folder).mkdir()
    store(tmp_path / "1" / f"a{ending}")
    data = tmp_path / "2" / f"a{ending}"
    other = MapSpec((1, 200, 300), levels=plan_levels((1, 200, 300), AXES, (1, 16, 16), None, pyramid=True))
    with open_map(data, other, resume=False) as output:
        output.write(Box.of_shape(other.shape), np.ones(other.shape, np.uint8))
    store(data)
    assert content(data) == content(tmp_path / "1" / f"a{ending}")


@pytest.mark.parametrize("damage", ["gone", "emptied"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_map_that_cannot_be_gone_on_with_is_said(tmp_path: Path, ending: str, damage: str) -> None:
    folder = tmp_path / f".map{ending}.partial"
    folder.mkdir()
    data = folder / f"map{ending}"
    open_map(data, spec(ending), resume=False).close()
    files = [file for file in folder.rglob("*") if file.is_file()]
    for file in files:
        if damage == "emptied":
            file.write_bytes(b"")
        else:
            file.unlink()
    if damage == "gone" and data.is_dir():
        for item in sorted(data.rglob("*"), reverse=True):
            item.rmdir()
        data.rmdir()
    message = rf"^{tmp_path}/map{ending} was begun, but cannot be gone on with: .*; remove {folder} to start over$"
    with pytest.raises(OutputError, match=message):
        open_map(data, spec(ending), resume=True)


def test_a_box_that_would_tear_a_chunk_is_a_defect(tmp_path: Path) -> None:
    shape = (3, 70, 90)
    levels = plan_levels(shape, AXES, (1, 16, 16), (2, 32, 32), pyramid=False)
    with open_map(tmp_path / "a.zarr", MapSpec(shape, levels=levels), resume=False) as output:
        for torn in (
            Box((1, 0, 0), (3, 32, 32)),
            Box((0, 0, 0), (1, 32, 32)),
            Box((0, 16, 0), (2, 32, 32)),
            Box((0, 0, 0), (2, 48, 32)),
            Box((0, 64, 64), (2, 96, 90)),
        ):
            with pytest.raises(AssertionError, match="would tear a unit"):
                output.write(torn, np.ones(torn.shape, np.uint8))
        output.write(Box((2, 64, 64), (3, 70, 90)), np.ones((1, 6, 26), np.uint8))


def test_hdf5_output_says_what_it_holds(tmp_path: Path) -> None:
    store(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        assert list(file) == ["boundary"]
        dataset = file["boundary"]
        assert dataset.attrs["element_size_um"] == pytest.approx([0.05, 0.0045, 0.0046])
        assert [dimension.label for dimension in dataset.dims] == ["z", "y", "x"]
        assert json.loads(dataset.attrs["emboundary"]) == FINAL


def test_hdf5_output_without_calibration_claims_none(tmp_path: Path) -> None:
    axes = (Axis("z"), Axis("y", 3.0, "nanometer"), Axis("x", 3.0, "nanometer"))
    open_map(tmp_path / "a.h5", spec(".h5", axes=axes), resume=False).finish({})
    with h5py.File(tmp_path / "a.h5") as file:
        assert "element_size_um" not in file["boundary"].attrs


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
def test_tiff_output_reads_as_zyx_elsewhere(tmp_path: Path, dtype: Dtype) -> None:
    store(tmp_path / "a.tif", dtype)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.series[0].axes == "ZYX"
        np.testing.assert_array_equal(file.asarray(), expected(dtype))
        text = file.pages.first.description
        assert file.is_ome == (dtype != "float16")
    assert json.dumps(FINAL) in text.replace("&quot;", '"').replace('\\"', '"')


def test_png_output_says_how_it_was_made(tmp_path: Path) -> None:
    store(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        image.load()
        assert json.loads(image.info["emboundary"]) == FINAL
    np.testing.assert_array_equal(
        imagecodecs.png_decode((tmp_path / "a.png").read_bytes()), expected("uint8", ".png")[0]
    )


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_long_list_of_missing_blocks_is_stored(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    store(path)
    long = {"missing": [str(box) for box in itertools.repeat(blocks(ending)[0], 20_000)]}
    open_map(path, spec(ending), resume=True).finish(long)
    np.testing.assert_array_equal(read(path), expected("uint8", ending))
    if ending == ".h5":
        with h5py.File(path) as file:
            assert json.loads(file["boundary"].attrs["emboundary"]) == long


@pytest.mark.parametrize(("shape", "dtype"), [((2, 8, 8), "uint8"), ((1, 8, 8), "float32"), ((1, 8, 8), "float16")])
def test_png_output_of_anything_else_is_refused(tmp_path: Path, shape: Triple, dtype: Dtype) -> None:
    with pytest.raises(UsageError, match=r"a PNG holds one section of uint8: give a \.zarr or \.tif, or --roi"):
        check_output(tmp_path / "a.png", shape, dtype)


@pytest.mark.parametrize("name", ["a", "a.jpg", "a.n5", "a.ZARR"])
def test_other_suffixes_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"its name must end in one of \.zarr, \.tif, \.tiff, \.h5, \.hdf5, \.png"):
        check_output(tmp_path / name, SHAPE, "uint8")


def test_a_url_is_refused() -> None:
    with pytest.raises(UsageError, match=r"OUTPUT is s3:/bucket/a\.zarr; maps are written to a local disk"):
        check_output(Path("s3://bucket/a.zarr"), SHAPE, "uint8")


def test_a_missing_parent_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=f"folder {tmp_path}/b of OUTPUT .* does not exist; create it first"):
        check_output(tmp_path / "b" / "a.zarr", SHAPE, "uint8")


@pytest.mark.parametrize("name", ["a.zarr", "a.tif", "a.h5"])
def test_an_existing_output_is_refused_and_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(OutputError, match=r"exists; move it away, or give --overwrite"):
        check_output(tmp_path / name, SHAPE, "uint8")
    check_output(tmp_path / name, SHAPE, "uint8", overwrite=True)
    assert (tmp_path / name).read_text() == "mine"
    assert names(tmp_path) == [name]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 KiB of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_said_and_what_is_stored_stays(disk: Path) -> None:
    shape = (32, 128, 128)
    large = MapSpec(shape, levels=plan_levels(shape, AXES, (1, 128, 128), None, pyramid=False))
    noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    written: list[Box] = []
    with open_map(disk / "a.zarr", large, resume=False) as output:

        def fill() -> None:
            for box in BlockGrid(Box.of_shape(shape), (1, 128, 128)):
                output.write(box, noise[box.slices])
                written.append(box)

        with pytest.raises(
            OutputError, match=r"a\.zarr cannot be written: No space left on device; free some space and"
        ):
            fill()
    assert 3 < len(written) < 32
    assert not list(disk.rglob("*.partial"))
    with open_map(disk / "a.zarr", large, resume=True) as again:
        for box in written:
            np.testing.assert_array_equal(again.read(box), noise[box.slices])


@pytest.mark.parametrize("ending", [".tif", ".h5", ".png"])
def test_a_disk_too_small_for_voxels_in_one_piece_shows_before_anything_is_computed(disk: Path, ending: str) -> None:
    data = disk / f"a{ending}"
    with pytest.raises(OutputError, match="No space left on device; free some space, or give an OUTPUT on another"):
        open_map(data, MapSpec((1, 1024, 1024)), resume=False)


@pytest.mark.parametrize("ending", [".tif", ".h5", ".png"])
def test_an_error_while_writing_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with open_map(tmp_path / f"a{ending}", spec(ending), resume=False) as output:
        monkeypatch.setattr(os, "pwrite", refuse)
        box = blocks(ending)[0]
        with pytest.raises(OutputError, match="Read-only file system; make the folder writable"):
            output.write(box, expected("uint8", ending)[box.slices])


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_disk_that_fails_to_flush_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with open_map(tmp_path / f"a{ending}", spec(ending), resume=False) as output:
        monkeypatch.setattr(os, "fdatasync", refuse)
        monkeypatch.setattr("emboundary.service.volumes.zarr_output.sync_file_system", refuse)
        with pytest.raises(OutputError, match="Input/output error; check the disk and give the same command again"):
            output.flush()


def test_flushing_a_closed_file_system_reports_its_error(tmp_path: Path) -> None:
    from emboundary.service.volumes.output import sync_file_system

    with (tmp_path / "a").open("w") as file:
        sync_file_system(file.fileno())
        descriptor = file.fileno()
    with pytest.raises(OSError, match="Bad file descriptor"):
        sync_file_system(descriptor)


def test_probabilities_are_rounded_not_cut() -> None:
    values = np.array([0.0, 0.4999 / 255, 0.5001 / 255, 254.6 / 255, 1.0], np.float32)
    assert MapSpec((1, 1, 5)).encode(values).tolist() == [0, 0, 1, 255, 255]


@pytest.mark.parametrize("ending", ENDINGS)
def test_outputs_can_be_closed_twice(tmp_path: Path, ending: str) -> None:
    output: Output = open_map(tmp_path / f"a{ending}", spec(ending), resume=False)
    output.finish({})
    output.close()
    output.close()
