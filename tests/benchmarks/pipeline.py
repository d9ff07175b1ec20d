"""What a run costs beside its network: ``python pipeline.py --data STACK.tif``.

In turns, each in a process of its own, on the same sections of a real volume:

* ``predict``: the command line, from TIFF to OME-Zarr; its ``seconds`` run from opening INPUT to the last byte stored.
* ``bare``: the same ONNX Runtime session (options and threads of ``service.engine``) over the same tiles from memory:
  the very images that ``predict`` gives its session, recorded beforehand, every answer thrown away.
* ``whole``: the same session over whole sections, reflected by the halo: what no tiling at all would cost.

The start of the process (imports, loading the model) is reported by itself: wall time of the command less ``seconds``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from engines import RecordingEngine, map_quietly
from measuring import answer, ask, in_turns, publish, ratios, spread

from emboundary.service.run.request import MapRequest

AXES = ["--axes", "zyx", "--voxel-size", "50,4.6,4.6"]


def predict(source: Path, target: Path) -> dict[str, Any]:
    """The command line, in a process of its own."""
    line = [
        sys.executable,
        "-m",
        "emboundary.service",
        "predict",
        str(source),
        str(target),
        "--device",
        "cpu",
        "--json",
    ]
    began = time.perf_counter()
    ended = subprocess.run([*line, *AXES], capture_output=True, text=True, check=True)
    wall = time.perf_counter() - began
    shutil.rmtree(target)
    report: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return {"seconds": report["seconds"], "start_seconds": wall - report["seconds"], "voxels": report["voxels"]}


def bare(source: Path, target: Path) -> None:
    """The session over the images that ``predict`` gives it."""
    engine = RecordingEngine.create()
    request = MapRequest(str(source), target, axes="zyx", voxel_size_nm=(50, 4.6, 4.6))
    map_quietly(request, engine)
    shutil.rmtree(target)
    began = time.perf_counter()
    for images in engine.batches:
        engine.run_network(images)
    seconds = time.perf_counter() - began
    shapes = sorted({images.shape for images in engine.batches})
    answer(seconds=seconds, pixels=sum(images.size for images in engine.batches), shapes=shapes)


def whole(source: Path) -> None:
    """The session over whole sections."""
    engine = RecordingEngine.create()
    (_, halo, _), (_, stride, _) = engine.footprint.halo, engine.footprint.stride
    stack = tifffile.imread(source)
    normal = ((stack - stack.mean()) / stack.std()).astype(np.float32)
    _, y, x = stack.shape
    images = np.pad(normal, ((0, 0), (halo, halo + -y % stride), (halo, halo + -x % stride)), mode="reflect")
    began = time.perf_counter()
    for image in images:
        engine.run_network(image[None, None])
    answer(seconds=time.perf_counter() - began, pixels=images.size, shapes=[images[:1, None].shape])


def main() -> None:
    """Measure in turns, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="a TIFF stack")
    parser.add_argument("--sections", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", choices=("bare", "whole"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work == "whole":
        whole(given.data)
        return
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / "map.zarr"
        if given.work == "bare":
            bare(given.data, target)
            return
        source = Path(scratch) / "sections.tif"
        stack = tifffile.imread(given.data)[: given.sections]
        tifffile.imwrite(source, stack, compression="zlib", photometric="minisblack")
        worker = [__file__, "--data", source, "--work"]
        answers = in_turns(
            {
                "predict": lambda: predict(source, target),
                "bare": lambda: ask([*worker, "bare"]),
                "whole": lambda: ask([*worker, "whole"]),
            },
            given.rounds,
        )
    publish(
        "pipeline",
        {
            "shape": list(stack.shape),
            "rounds": given.rounds,
            "tiles": answers["bare"][0]["shapes"],
            "seconds": {name: spread([a["seconds"] for a in found]) for name, found in answers.items()},
            "voxels_per_second": stack.size / spread([a["seconds"] for a in answers["predict"]])["median"],
            "start_seconds": spread([a["start_seconds"] for a in answers["predict"]]),
            "predict_over_bare": spread(ratios(answers, "predict", "bare", "seconds")),
            "predict_over_whole": spread(ratios(answers, "predict", "whole", "seconds")),
            "bare_over_whole": spread(ratios(answers, "bare", "whole", "seconds")),
            "pixels_over_whole": answers["bare"][0]["pixels"] / answers["whole"][0]["pixels"],
            "voxels_share": stack.size / answers["bare"][0]["pixels"],
        },
    )


if __name__ == "__main__":
    main()
