"""Maps as OME-Zarr, as other libraries see them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import ome_zarr_models
import ome_zarr_models.v04
import pydantic_zarr.v2
import pytest
import tensorstore
import zarr
from ome_zarr.io import parse_url
from ome_zarr.reader import Multiscales, Reader
from yaozarrs import validate_zarr_store

from emboundary.model.geometry import BlockGrid, Box, Triple
from emboundary.service.errors import OutputError, UsageError
from emboundary.service.volumes import Dtype, MapSpec, OmeZarr, downsample, open_map, open_volume, plan_levels
from emboundary.service.volumes.axes import Axis, SpaceAxes
from emboundary.service.volumes.layout import source_box

SHAPE = (4, 300, 520)
AXES: SpaceAxes = (
    Axis("z", 50.0, "nanometer", 100.0),
    Axis("y", 20.0, "nanometer"),
    Axis("x", 20.0, "nanometer", -2.0),
)
PROVENANCE = {"model": "d4"}
FINAL = {"model": "d4", "missing": ["0:6,0:64,0:64"]}
VERSIONS = get_args(OmeZarr)


def spec(
    version: OmeZarr = "0.5", dtype: Dtype = "uint8", shard: Triple | None = None, axes: SpaceAxes = AXES
) -> MapSpec:
    levels = plan_levels(SHAPE, axes, (2, 64, 64), shard, pyramid=True)
    return MapSpec(SHAPE, dtype, axes, PROVENANCE, levels, version)


def volume(dtype: Dtype = "uint8") -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, SHAPE, dtype=np.uint8) if dtype == "uint8" else rng.random(SHAPE).astype(dtype)


def store(data: Path, wanted: MapSpec) -> list[np.ndarray[Any, Any]]:
    """Write a map and its pyramid block by block, each level from what the one before stored."""
    output = open_map(data, wanted, resume=False)
    whole = [volume(wanted.dtype)]
    for box in BlockGrid(Box.of_shape(SHAPE), wanted.levels[0].unit):
        output.write(box, whole[0][box.slices])
    for number, level in enumerate(wanted.levels[1:], 1):
        for box in BlockGrid(Box.of_shape(level.shape), level.unit):
            source, factors = source_box(wanted.levels, number, box)
            output.write(box, downsample(output.read(source, number - 1), factors), number)
        whole.append(downsample(whole[-1], factors))
    output.finish(FINAL)
    return whole


@pytest.fixture(scope="module", params=VERSIONS)
def stored(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, OmeZarr, list[Any]]:
    """A map with its pyramid in each version: path, version, levels."""
    path = tmp_path_factory.mktemp("stored") / "a.zarr"
    return path, request.param, store(path, spec(request.param))


Stored = tuple[Path, OmeZarr, list[Any]]


def validated(path: Path, version: OmeZarr) -> Any:
    """The image as ome-zarr-models sees it, which refuses what breaks the rules of its version."""
    # Its 0.4 models name a type that pydantic 2.14 does not find by itself.
    ome_zarr_models.v04.Image.model_rebuild(_types_namespace={"ArraySpec": pydantic_zarr.v2.ArraySpec})
    return ome_zarr_models.open_ome_zarr(zarr.open_group(path, mode="r"), version=version)


def test_it_is_valid(stored: Stored) -> None:
    path, version, _ = stored
    validate_zarr_store(path)
    image = validated(path, version)
    assert type(image).__name__ == "Image"
    assert image.ome_zarr_version == version


def test_it_says_where_its_voxels_are(stored: Stored) -> None:
    path, version, levels = stored
    image = validated(path, version)
    attributes = image.ome_attributes if version == "0.5" else image.attributes
    (multiscale,) = attributes.multiscales
    assert [(axis.name, axis.type, axis.unit) for axis in multiscale.axes] == [
        (name, "space", "nanometer") for name in "zyx"
    ]
    scales, origins = [], []
    for dataset in multiscale.datasets:
        scale, translation = dataset.coordinateTransformations
        scales.append(tuple(scale.scale))
        origins.append(tuple(translation.translation))
    assert len(levels) == 3
    assert scales == [(50, 20, 20), (50, 40, 40), (100, 80, 80)]
    assert origins == [(100, 0, -2), (100, 10, 8), (125, 30, 28)]
    assert multiscale.type == "mean"


def test_another_library_reads_its_levels(stored: Stored) -> None:
    path, _, levels = stored
    location = parse_url(path, mode="r")
    assert location is not None
    (node,) = Reader(location)()
    (multiscales,) = [part for part in node.specs if isinstance(part, Multiscales)]
    assert multiscales.datasets == ["0", "1", "2"]
    for seen, level in zip(node.data, levels, strict=True):
        np.testing.assert_array_equal(np.asarray(seen), level)


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
@pytest.mark.parametrize(("version", "shard"), [("0.4", None), ("0.5", None), ("0.5", (4, 128, 128))])
def test_another_implementation_of_zarr_reads_its_codecs(
    tmp_path: Path, version: OmeZarr, shard: Triple | None, dtype: Dtype
) -> None:
    levels = store(tmp_path / "a.zarr", spec(version, dtype, shard))
    driver = {"0.4": "zarr", "0.5": "zarr3"}[version]
    for number, level in enumerate(levels):
        kvstore = {"driver": "file", "path": str(tmp_path / "a.zarr" / str(number))}
        seen = tensorstore.open({"driver": driver, "kvstore": kvstore}).result()
        np.testing.assert_array_equal(seen.read().result(), level)


def test_it_keeps_how_it_was_made(stored: Stored) -> None:
    assert zarr.open_group(stored[0], mode="r").attrs["emboundary"] == FINAL


def test_our_own_reader_finds_level_0(stored: Stored) -> None:
    path, _, levels = stored
    with open_volume(path) as opened:
        assert opened.axes == AXES
        np.testing.assert_array_equal(opened[0:4, 0:300, 0:520], levels[0])


def test_0_4_is_zarr_v2_with_folders_of_chunks(tmp_path: Path) -> None:
    store(tmp_path / "a.zarr", spec("0.4"))
    metadata = json.loads((tmp_path / "a.zarr" / "0" / ".zarray").read_text())
    assert metadata["zarr_format"] == 2
    assert metadata["dimension_separator"] == "/"
    assert metadata["chunks"] == [2, 64, 64]
    assert (tmp_path / "a.zarr" / "0" / "1" / "4" / "8").is_file()


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
def test_shards_hold_whole_chunks(tmp_path: Path, dtype: Dtype) -> None:
    levels = store(tmp_path / "a.zarr", spec(dtype=dtype, shard=(4, 128, 128)))
    validate_zarr_store(tmp_path / "a.zarr")
    group = zarr.open_group(tmp_path / "a.zarr", mode="r")
    for number, level in enumerate(levels):
        array = group[str(number)]
        assert isinstance(array, zarr.Array)
        assert array.chunks == (2, 64, 64)
        np.testing.assert_array_equal(array[:], level)
    files = [path for path in (tmp_path / "a.zarr" / "0" / "c").rglob("*") if path.is_file()]
    assert len(files) == 1 * 3 * 5


def test_shards_in_0_4_are_refused() -> None:
    with pytest.raises(UsageError, match=r"shard is 4,128,128, but OME-Zarr 0\.4 knows no shards: leave --shard out"):
        spec("0.4", shard=(4, 128, 128))


def test_shards_of_nothing_but_zero_are_not_stored(tmp_path: Path) -> None:
    output = open_map(tmp_path / "a.zarr", spec(shard=(4, 128, 128)), resume=False)
    values = volume()
    values[:4, :128, :128] = 0  # a whole shard
    values[:4, :64, 128:256] = 0  # some chunks of one
    output.write(Box.of_shape(SHAPE), values)
    output.finish(FINAL)
    column = tmp_path / "a.zarr" / "0" / "c" / "0" / "0"
    assert sorted(path.name for path in column.iterdir()) == ["1", "2", "3", "4"]
    with open_volume(tmp_path / "a.zarr") as opened:
        np.testing.assert_array_equal(opened[0:4, 0:300, 0:520], values)


@pytest.mark.parametrize("version", VERSIONS)
def test_chunks_of_nothing_but_zero_are_not_stored(tmp_path: Path, version: OmeZarr) -> None:
    output = open_map(tmp_path / "a.zarr", spec(version), resume=False)
    output.write(Box.of_shape(SHAPE), np.zeros(SHAPE, np.uint8))
    output.finish(FINAL)
    level = tmp_path / "a.zarr" / "0"
    assert [path.name for path in level.rglob("*") if path.is_file() and path.name not in ("zarr.json", ".zarray")] in (
        [],
        [".zattrs"],
    )
    with open_volume(tmp_path / "a.zarr") as opened:
        assert not opened[0:4, 0:300, 0:520].any()


def test_without_calibration_it_claims_none(tmp_path: Path) -> None:
    axes = (Axis("z"), Axis("y", 3.0, "pixel"), Axis("x"))
    open_map(tmp_path / "a.zarr", spec(axes=axes), resume=False).finish(FINAL)
    with open_volume(tmp_path / "a.zarr") as opened:
        assert [axis.unit for axis in opened.axes] == [None, "pixel", None]
        assert [axis.scale for axis in opened.axes] == [1.0, 3.0, 1.0]
        assert opened.voxel_size_nm is None


KILLED_BEFORE_A_RENAME = """
import os, signal, sys
from pathlib import Path
import numpy as np
from emboundary.model.geometry import Box
from emboundary.service.volumes import MapSpec, open_map, plan_levels
shape = (2, 64, 64)
levels = plan_levels(shape, MapSpec(shape).axes, (1, 32, 32), None, pyramid=False)
spec = MapSpec(shape, levels=levels, ome_zarr=sys.argv[2])
output = open_map(Path(sys.argv[1]), spec, resume=False)
Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[3] == "write":
    output.write(Box.of_shape(shape), np.ones(shape, np.uint8))
else:
    output.finish({})
"""


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("doing", ["write", "finish"])
def test_files_that_a_kill_left_half_written_are_swept(tmp_path: Path, version: OmeZarr, doing: str) -> None:
    path = tmp_path / "a.zarr"
    command = [sys.executable, "-c", KILLED_BEFORE_A_RENAME, str(path), version, doing]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    left = list(path.rglob("*.partial"))
    assert left
    before = {file for file in path.rglob("*") if file.is_file()}
    mine = path / "0" / "notes.partial"
    mine.write_text("not written by zarr")
    shape = (2, 64, 64)
    levels = plan_levels(shape, AXES, (1, 32, 32), None, pyramid=False)
    with open_map(path, MapSpec(shape, levels=levels, ome_zarr=version), resume=True) as output:
        assert {file for file in path.rglob("*") if file.is_file()} == before - set(left) | {mine}
        output.write(Box.of_shape(shape), np.ones(shape, np.uint8))
        output.finish({})


def test_another_layout_is_not_gone_on_with(tmp_path: Path) -> None:
    open_map(tmp_path / "a.zarr", spec(), resume=False).close()
    for other in (spec(shard=(4, 128, 128)), spec(dtype="float32")):
        with pytest.raises(OutputError, match="level 0 is not what this run would write"):
            open_map(tmp_path / "a.zarr", other, resume=True)


def test_damage_is_noticed_when_a_level_is_made(tmp_path: Path) -> None:
    with open_map(tmp_path / "a.zarr", spec(), resume=False) as output:
        box = Box((0, 0, 0), (2, 64, 64))
        output.write(box, volume()[box.slices])
        chunk = tmp_path / "a.zarr" / "0" / "c" / "0" / "0" / "0"
        content = bytearray(chunk.read_bytes())
        content[len(content) // 2] ^= 1
        chunk.write_bytes(content)
        with pytest.raises(OutputError, match=r"a\.zarr was begun, but cannot be gone on with: .*; remove .* to start"):
            output.read(box)


def open_files() -> set[str]:
    return {str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()}


def test_the_folder_is_held_open_so_that_every_error_of_the_disk_is_heard(tmp_path: Path) -> None:
    with open_map(tmp_path / "a.zarr", spec(), resume=False) as output:
        assert str(tmp_path / "a.zarr") in open_files()
        output.flush()
    assert str(tmp_path / "a.zarr") not in open_files()
