from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr
from yaozarrs import v05, validate_zarr_store

from emboundary.model.geometry import BlockGrid, Box
from emboundary.service.errors import OutputError, UsageError
from emboundary.service.volumes import Dtype, MapSpec, Output, check_output, create_output, open_volume
from emboundary.service.volumes.axes import Axis, SpaceAxes

SHAPE = (3, 70, 90)
MAP = np.random.default_rng(0).random(SHAPE, dtype=np.float32)
AXES: SpaceAxes = (
    Axis("z", 50.0, "nanometer", 100.0),
    Axis("y", 4.5, "nanometer"),
    Axis("x", 4.6, "nanometer", -2.0),
)
PROVENANCE = {"model": "d4", "intensity": [1.5, 2.5]}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def spec(dtype: Dtype = "uint8", axes: SpaceAxes = AXES) -> MapSpec:
    return MapSpec(SHAPE, dtype, (1, 32, 32), axes, PROVENANCE)


def write(path: Path, dtype: Dtype = "uint8", *, overwrite: bool = False, value: np.ndarray[Any, Any] = MAP) -> None:
    with create_output(path, spec(dtype), overwrite=overwrite) as output:
        for box in BlockGrid(Box.of_shape(SHAPE), (2, 64, 32)):
            output.write(box, value[box.slices])
        output.commit()


def expected(dtype: Dtype) -> np.ndarray[Any, Any]:
    return np.rint(MAP * np.float32(255)).astype(np.uint8) if dtype == "uint8" else MAP.astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
@pytest.mark.parametrize("name", ["a.zarr", "a.tif", "a.tiff"])
def test_what_was_written_comes_back(tmp_path: Path, name: str, dtype: Dtype) -> None:
    write(tmp_path / name, dtype)
    assert names(tmp_path) == [name]
    with open_volume(tmp_path / name) as volume:
        assert volume.voxel_size_nm == pytest.approx((50, 4.5, 4.6))
        np.testing.assert_array_equal(volume[0:3, 0:70, 0:90], expected(dtype))


def test_zarr_output_is_a_valid_ome_zarr_image(tmp_path: Path) -> None:
    write(tmp_path / "a.zarr")
    validate_zarr_store(tmp_path / "a.zarr")
    group = zarr.open_group(tmp_path / "a.zarr", mode="r")
    image = v05.Image.model_validate(group.attrs["ome"])
    assert [(axis.name, axis.type, axis.unit) for axis in image.multiscales[0].axes] == [
        (name, "space", "nanometer") for name in "zyx"
    ]
    level = image.multiscales[0].datasets[0]
    assert level.scale_transform.scale == [50.0, 4.5, 4.6]
    assert level.translation_transform is not None
    assert level.translation_transform.translation == [100.0, 0.0, -2.0]
    array = group["0"]
    assert isinstance(array, zarr.Array)
    assert array.chunks == (1, 32, 32)
    assert array.metadata.to_dict()["dimension_names"] == ("z", "y", "x")
    assert group.attrs["emboundary"] == PROVENANCE


def test_zarr_output_without_calibration_claims_none(tmp_path: Path) -> None:
    with create_output(tmp_path / "a.zarr", spec(axes=(Axis("z"), Axis("y", 3.0, "pixel"), Axis("x")))) as output:
        output.commit()
    with open_volume(tmp_path / "a.zarr") as volume:
        assert [axis.unit for axis in volume.axes] == [None, "pixel", None]
        assert [axis.scale for axis in volume.axes] == [1.0, 3.0, 1.0]
        assert volume.voxel_size_nm is None


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
def test_tiff_output_reads_as_zyx_elsewhere(tmp_path: Path, dtype: Dtype) -> None:
    write(tmp_path / "a.tif", dtype)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.series[0].axes == "ZYX"
        np.testing.assert_array_equal(file.asarray(), expected(dtype))
        text = file.pages.first.description
        assert file.is_ome == (dtype != "float16")
    assert json.dumps(PROVENANCE) in text.replace("&quot;", '"').replace('\\"', '"')


def test_png_output_holds_one_section(tmp_path: Path) -> None:
    one = MapSpec((1, 70, 90))
    with create_output(tmp_path / "a.png", one) as output:
        for box in BlockGrid(Box.of_shape(one.shape), (1, 32, 64)):
            output.write(box, MAP[:1][box.slices])
        output.commit()
    image = imagecodecs.png_decode((tmp_path / "a.png").read_bytes())
    np.testing.assert_array_equal(image, expected("uint8")[0])


@pytest.mark.parametrize(("shape", "dtype"), [((2, 8, 8), "uint8"), ((1, 8, 8), "float32"), ((1, 8, 8), "float16")])
def test_png_output_of_anything_else_is_refused(tmp_path: Path, shape: tuple[int, int, int], dtype: Dtype) -> None:
    with pytest.raises(UsageError, match=r"a PNG holds one section of uint8: give a \.zarr or \.tif, or --roi"):
        check_output(tmp_path / "a.png", shape, dtype)


@pytest.mark.parametrize("name", ["a", "a.jpg", "a.h5", "a.ZARR"])
def test_other_suffixes_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"its name must end in one of \.zarr, \.tif, \.tiff, \.png"):
        create_output(tmp_path / name, spec())


def test_a_missing_parent_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=f"folder {tmp_path}/b of OUTPUT .* does not exist; create it first"):
        create_output(tmp_path / "b" / "a.zarr", spec())


@pytest.mark.parametrize("name", ["a.zarr", "a.tif"])
def test_an_existing_output_is_refused_and_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(OutputError, match=r"exists; move it away, or give --overwrite"):
        create_output(tmp_path / name, spec())
    assert (tmp_path / name).read_text() == "mine"
    assert names(tmp_path) == [name]


@pytest.mark.parametrize("name", ["a.zarr", "a.tif"])
def test_overwriting_replaces_only_at_the_end(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write(path, value=np.zeros_like(MAP))
    with create_output(path, spec(), overwrite=True) as output:
        output.write(Box.of_shape(SHAPE), MAP)
        with open_volume(path) as volume:
            assert not volume[0:3, 0:70, 0:90].any()
        output.commit()
    with open_volume(path) as volume:
        np.testing.assert_array_equal(volume[0:3, 0:70, 0:90], expected("uint8"))
    assert names(tmp_path) == [name]


@pytest.mark.parametrize("before", ["a file", "a folder"])
def test_overwriting_changes_the_kind_too(tmp_path: Path, before: str) -> None:
    for name in ("a.zarr", "a.tif"):
        path = tmp_path / name
        if before == "a file":
            path.write_text("old")
        else:
            path.mkdir()
            (path / "old").write_text("old")
        write(path, overwrite=True)
        with open_volume(path) as volume:
            assert volume.shape == SHAPE


@pytest.mark.parametrize("name", ["a.zarr", "a.tif", "a.png"])
def test_without_commit_nothing_is_left(tmp_path: Path, name: str) -> None:
    shape = (1, 70, 90)
    with create_output(tmp_path / name, MapSpec(shape)) as output:
        output.write(Box.of_shape(shape), MAP[:1])
        assert not (tmp_path / name).exists()
    assert names(tmp_path) == []


def test_an_output_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    with create_output(tmp_path / "a.tif", spec()) as output:
        (tmp_path / "a.tif").write_text("mine")
        with pytest.raises(OutputError, match="has appeared during the run; move it away, or give --overwrite"):
            output.commit()
    assert (tmp_path / "a.tif").read_text() == "mine"


def test_two_runs_do_not_write_the_same_output(tmp_path: Path) -> None:
    with create_output(tmp_path / "a.zarr", spec()) as first:
        with pytest.raises(OutputError, match=r"another run is writing .*a\.zarr; wait for it, or give another OUTPUT"):
            create_output(tmp_path / "a.zarr", spec())
        first.write(Box.of_shape(SHAPE), MAP)
        first.commit()
    with open_volume(tmp_path / "a.zarr") as volume:
        np.testing.assert_array_equal(volume[0:3, 0:70, 0:90], expected("uint8"))


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from emboundary.model.geometry import Box
from emboundary.service.volumes import MapSpec, create_output
output = create_output(Path(sys.argv[1]), MapSpec((3, 70, 90), chunks=(1, 32, 32)), overwrite=True)
output.write(Box((0, 0, 0), (1, 32, 90)), np.ones((1, 32, 90), np.float32))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("name", ["a.zarr", "a.tif", "a.png"])
def test_what_a_killed_run_left_is_replaced(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    shape = (1, 70, 90) if name == "a.png" else SHAPE
    done = subprocess.run([sys.executable, "-c", KILLED.replace("(3, 70, 90)", str(shape)), str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not path.exists()
    with create_output(path, MapSpec(shape)) as output:
        assert output.replaces_leftover == (name != "a.png")  # a PNG is on disk only once it is whole
        output.write(Box.of_shape(shape), MAP[: shape[0]])
        output.commit()
    assert names(tmp_path) == [name]
    with open_volume(path) as volume:
        np.testing.assert_array_equal(volume[0 : shape[0], 0:70, 0:90], expected("uint8")[: shape[0]])


def test_a_run_killed_between_its_two_renames_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    write(path)
    (tmp_path / ".a.zarr.partial").mkdir()
    path.rename(tmp_path / ".a.zarr.partial" / "replaced")
    output = create_output(path, spec(), overwrite=True)
    output.abort()
    with open_volume(path) as volume:
        np.testing.assert_array_equal(volume[0:3, 0:70, 0:90], expected("uint8"))
    assert names(tmp_path) == ["a.zarr"]


def test_a_rename_that_fails_puts_the_old_output_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.zarr"
    write(path)

    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with create_output(path, spec(), overwrite=True) as output:
        monkeypatch.setattr(Path, "replace", refuse)
        with pytest.raises(OutputError, match=r"a\.zarr cannot be written: Input/output error"):
            output.commit()
    with open_volume(path) as volume:
        np.testing.assert_array_equal(volume[0:3, 0:70, 0:90], expected("uint8"))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def full(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    with create_output(tmp_path / "a.tif", spec()) as output:
        monkeypatch.setattr(os, "pwrite", full)
        with pytest.raises(
            OutputError, match=r"no space left for .*a\.tif; free some, or give an OUTPUT on another disk"
        ):
            output.write(Box.of_shape(SHAPE), MAP)
    assert names(tmp_path) == []


def test_a_disk_too_small_for_a_tiff_shows_before_anything_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OutputError, match="no space left"):
        create_output(tmp_path / "a.tif", spec())
    assert names(tmp_path) == []


def test_probabilities_are_rounded_not_cut() -> None:
    values = np.array([0.0, 0.4999 / 255, 0.5001 / 255, 254.6 / 255, 1.0], np.float32)
    assert MapSpec((1, 1, 5)).encode(values).tolist() == [0, 0, 1, 255, 255]


def test_outputs_can_be_closed_twice(tmp_path: Path) -> None:
    output: Output = create_output(tmp_path / "a.tif", spec())
    output.commit()
    output.abort()
    output.abort()
    assert names(tmp_path) == ["a.tif"]
