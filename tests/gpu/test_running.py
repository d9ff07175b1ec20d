"""Whole runs on a GPU: the command, the service, memory that is bounded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray

from emboundary.service import console
from emboundary.service.cli import create_cli
from emboundary.service.client import BoundaryClient
from emboundary.service.demo.background import background_service
from emboundary.service.engine import GpuOptions, OnnxEngine, find_model
from emboundary.service.gpus.driver import visible
from emboundary.service.preparing.intensity import Intensity
from emboundary.service.run.inference import predict_array

MEBIBYTE = 1 << 20


@pytest.mark.usefixtures("gpu")
def test_predict_says_where_it_ran_and_gives_the_cpus_map(
    tmp_path: Path, stack: NDArray[np.uint8], capfd: pytest.CaptureFixture[str]
) -> None:
    tifffile.imwrite(tmp_path / "in.tif", stack, metadata={"axes": "ZYX"})
    maps = []
    for device in ("cuda", "cpu"):
        target = tmp_path / f"{device}.zarr"
        options = ["--device", device, "--voxel-size", "50,4.6,4.6", "--json", "--progress", "none"]
        code = console.run(create_cli(), "emboundary", ["predict", str(tmp_path / "in.tif"), str(target), *options])
        out, err = capfd.readouterr()
        assert code == 0, err
        assert json.loads(out.splitlines()[-1])["device"] == device
        maps.append(np.asarray(zarr.open_group(target, mode="r")["0"]).astype(int))
    assert np.abs(maps[0] - maps[1]).max() <= 1


def test_the_service_answers_with_the_engines_map(gpu: OnnxEngine, stack: NDArray[np.uint8]) -> None:
    intensity = Intensity(128.0, 40.0)
    with background_service("--device", "cuda") as url, BoundaryClient(url) as client:
        found = [client.predict(stack, intensity=intensity) for _ in range(3)]
    expected = predict_array(gpu, stack, intensity)
    for answer in found:
        assert answer.device == "cuda"
        assert np.abs(answer.array - expected).max() <= 1e-5


@pytest.mark.usefixtures("gpu")
def test_memory_stays_below_what_was_allowed() -> None:
    before = visible().gpus[0].free_bytes
    options = GpuOptions(memory_bytes=2048 * MEBIBYTE, lanes=1)
    engine = OnnxEngine.open(find_model(), "cuda", gpu=options)
    side = engine.largest_tile()
    assert side is not None
    after = visible().gpus[0].free_bytes
    assert before is not None
    assert after is not None
    # Beside the arenas: CUDA's own context, kernels and handles.
    assert before - after <= 2048 * MEBIBYTE + 2048 * MEBIBYTE


@pytest.mark.usefixtures("gpu")
def test_every_gpu_works() -> None:
    gpus = visible().gpus
    if len(gpus) < 2:
        pytest.skip(f"this host has {len(gpus)} GPU")
    engine = OnnxEngine.open(find_model(), "cuda")
    assert engine.lanes == 2 * len(gpus)
    runner: Any = engine._runner
    assert {lane.place.index for lane in runner._lanes} == {gpu.index for gpu in gpus}
