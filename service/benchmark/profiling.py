"""Take a network's profile: in this process on a CPU, in one of its own on a GPU.

A GPU computes behind the back of those who call it: the calls of a run are over before its work is.  ONNX Runtime's
wheels are not built to record kernels; but in a process that was started with ``CUDA_LAUNCH_BLOCKING=1`` every call
waits for its kernel, so that the time of the calls is that of the kernels and a few microseconds each.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from emboundary.model.description import Precision
from emboundary.model.repository import ModelEntry
from emboundary.service.benchmark.profiles import Profile, profile
from emboundary.service.benchmark.sessions import bound
from emboundary.service.engine import find_model
from emboundary.service.engine.cuda import open_graph
from emboundary.service.engine.place import Place
from emboundary.service.engine.sessions import find_file, session_options
from emboundary.service.errors import DeviceError
from emboundary.service.gpus.libraries import preload

Shape = tuple[int, int, int]


def profile_model(entry: ModelEntry, precision: Precision, place: Place, shape: Shape, *, layers: int = 5) -> Profile:
    """Where the network's time goes on images of a shape (n, y, x).

    Args:
        entry: the model.
        precision: its arithmetic.
        place: where it runs.
        shape: y and x are multiples of the stride.
        layers: that are told apart, the longest ones.

    Raises:
        ModelUnavailableError: the model has no file for the precision, or a damaged one.
        DeviceError: a GPU fails, as it does when memory runs out.
    """
    take = profile_here if place.device == "cpu" else profile_in_a_process
    return take(entry, precision, place, shape, layers=layers)


def profile_here(entry: ModelEntry, precision: Precision, place: Place, shape: Shape, *, layers: int = 5) -> Profile:
    """The same in this process."""
    n, y, x = shape
    described = entry.description
    with TemporaryDirectory() as folder:
        options = session_options()
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        file = find_file(entry, precision)
        session = open_graph(file, place, options=options, channels_last=precision == "float16")
        images = np.zeros((n, described.footprint.channels, y, x), np.float32)
        maps = (n, len(described.outputs), y, x)
        run = bound(session, place, {described.input.name: images}, {described.output.name: (maps, np.float32)})
        return profile(
            described.name, precision, images.shape, run, lambda: Path(str(session.end_profiling())), layers=layers
        )


def profile_in_a_process(
    entry: ModelEntry, precision: Precision, place: Place, shape: Shape, *, layers: int = 5
) -> Profile:
    """The same in a process of its own, whose calls to a GPU wait for what they begin."""
    words = (entry.path.parent, precision, place.device, place.index, layers, *shape)
    ended = subprocess.run(
        [sys.executable, "-m", __name__, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "CUDA_LAUNCH_BLOCKING": "1"},
    )
    if ended.returncode:
        last = (ended.stderr.strip().splitlines() or ["it gave no reason"])[-1]
        raise DeviceError(
            f"no profile of {entry.description.name} in {precision} on images of shape {shape}: {last}; if memory ran "
            "out, give a smaller --tile"
        )
    found = Profile.model_validate_json(ended.stdout.splitlines()[-1])
    return found.model_copy(update={"clock": "waiting calls"}) if found.clock == "calls" else found


def _main(folder: str, precision: Precision, device: str, index: str, layers: str, *shape: str) -> None:
    if device == "cuda":
        preload()
    n, y, x = map(int, shape)
    found = profile_here(find_model(Path(folder)), precision, Place(device, int(index)), (n, y, x), layers=int(layers))
    sys.stdout.write(f"\n{found.model_dump_json()}\n")


if __name__ == "__main__":
    _main(*sys.argv[1:])  # type: ignore[arg-type]  # by this module alone, with what it checked
