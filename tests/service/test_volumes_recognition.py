from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
import zarr

from emboundary.service.cli import create_cli
from emboundary.service.console import run
from emboundary.service.volumes.recognition import is_map


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    array = np.random.default_rng(2).integers(0, 256, (2, 40, 50)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "raw.tif", array, photometric="minisblack", metadata={"axes": "ZYX"})
    return tmp_path / "raw.tif"


@pytest.mark.parametrize(
    "options",
    [
        ["map.zarr"],
        ["map.zarr", "--ome-zarr", "0.4"],
        ["map.tif"],
        ["map.tif", "--dtype", "float16"],
        ["map.h5"],
        ["map.png", "--roi", "0:1,0:40,0:50"],
    ],
)
def test_every_output_is_known_again(raw: Path, repository: Path, options: list[str]) -> None:
    name, *others = options
    model = ["--model", str(repository / "d4/1/model.onnx"), "--device", "cpu"]
    assert run(create_cli(), "emboundary", ["predict", str(raw), str(raw.with_name(name)), *model, *others]) == 0
    assert is_map(raw.with_name(name))


def test_what_others_made_is_not(raw: Path, tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "a.zarr", shape=(2, 2), dtype="u1", attributes={"emboundary": "raw"})
    zarr.create_group(tmp_path / "g.zarr", attributes={"ome": {}})
    zarr.create_array(tmp_path / "b.zarr", shape=(2, 2), dtype="u1", zarr_format=2)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["boundary"] = np.zeros((2, 3, 4))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    (tmp_path / "a.txt").write_text(json.dumps({"emboundary_version": "1"}))
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    names = ("a.zarr", "g.zarr", "b.zarr", "a.h5", "a.png", "a.txt", "empty", "folder", "none", raw.name)
    assert [name for name in names if is_map(tmp_path / name)] == []
