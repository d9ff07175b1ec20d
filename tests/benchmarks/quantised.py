"""Two smaller files of a model: ``python quantised.py --data STACK.tif --labels MEMBRANES.tif [--model NAME|PATH]...``.

* ``float16``: weights stored in half precision, arithmetic as before (``model.storage``);
* ``int8``: 8-bit arithmetic for CPUs (``model.quantise``), calibrated on crops of the training sections.

Measured against the file as it is, on crops of sections that it was not trained on: ROC AUC and average precision, the
difference in probability, the largest violation of the symmetry, sizes, the time to load, and the time of a pass
through ONNX Runtime.  The three take turns within one process, round after round, each round begun by another one, and
ratios are taken within a round.  With one thread the time is CPU time, which other processes on the machine do not
stretch; with two it is wall time.

int8 pays if the AUC falls by less than 0.001 and a pass is at least 1.5 times as fast, with one thread and with two.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import tifffile
from measuring import publish, say, spread
from numpy.typing import NDArray

from emboundary.model import scores
from emboundary.model.description import ModelDescription
from emboundary.model.groups import D4, act, inverse_element
from emboundary.model.quantise import quantise
from emboundary.model.repository import DEFAULT_MODEL, load_model
from emboundary.model.storage import restore_whole, store_in_half

TRAINED, HELD_OUT = slice(0, 13, 3), slice(13, 16)
BASE, LOST, FASTER = "float32", 0.001, 1.5
Images = NDArray[np.float32]
Sessions = dict[str, ort.InferenceSession]


def session(content: bytes, threads: int) -> ort.InferenceSession:
    """As the service makes one."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.use_deterministic_compute = True
    options.enable_mem_pattern = False
    options.log_severity_level = 4
    return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def run(running: ort.InferenceSession, image: Images) -> Images:
    """Probabilities of images (n, 1, y, x)."""
    return np.asarray(running.run(None, {running.get_inputs()[0].name: np.ascontiguousarray(image)})[0])


def violation(running: ort.InferenceSession, image: Images) -> float:
    """Largest ``|f(g x) - g f(x)|`` over the 8 rotations and flips."""
    upright = run(running, image)
    turned = (act(inverse_element(e), run(running, act(e, image))) for e in D4.elements)
    return max(float(np.abs(t - upright).max()) for t in turned)


def in_rounds(works: dict[str, Callable[[], Any]], rounds: int, clock: Callable[[], float]) -> dict[str, list[float]]:
    """Seconds of each work, round after round; a round before them warms up and does not count."""
    names, taken = list(works), {name: [] for name in works}
    for number in range(-1, rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            began = clock()
            works[name]()
            if number >= 0:
                taken[name].append(clock() - began)
    return taken


def faster(taken: dict[str, list[float]], name: str) -> dict[str, float]:
    """How many times as fast as the file as it is, within each round."""
    return spread([base / own for base, own in zip(taken[BASE], taken[name], strict=True)])


def accuracy(sessions: Sessions, images: Images, labels: NDArray[np.bool_]) -> dict[str, dict[str, float]]:
    """Scores on held-out crops (z, y, x), and the distance from the file as it is."""
    maps = {
        name: np.concatenate([run(running, image[None, None])[0] for image in images])
        for name, running in sessions.items()
    }
    found = {}
    for name, probability in maps.items():
        curve = scores.curve(labels, probability)
        difference = np.abs(probability - maps[BASE])
        found[name] = {
            "roc_auc": scores.roc_auc(curve),
            "average_precision": scores.average_precision(curve),
            "largest_difference": float(difference.max()),
            "mean_difference": float(difference.mean()),
        }
    return found


def measure(
    path: Path, description: ModelDescription, stack: Images, labels: NDArray[np.bool_], side: int, rounds: int
) -> dict[str, Any]:
    """All figures of one model."""
    model = restore_whole(onnx.load(path))
    files = {
        BASE: model,
        "float16": store_in_half(model),
        "int8": quantise(model, [section[None, None, -side:, -side:] for section in stack[TRAINED]]),
    }
    contents = {name: file.SerializeToString() for name, file in files.items()}
    crops, target = stack[HELD_OUT, :side, :side], labels[HELD_OUT, :side, :side]
    one = {name: session(content, 1) for name, content in contents.items()}
    rows = accuracy(one, crops, target)
    _, y, x = description.stride
    for name, running in one.items():
        rows[name]["bytes"] = len(contents[name])
        rows[name]["symmetry_error"] = violation(running, crops[:1, None, : 12 * y, : 8 * x])
    image = crops[:1, None]
    loading = {name: lambda content=content: session(content, 1) for name, content in contents.items()}
    load_taken = in_rounds(loading, rounds, time.process_time)
    pass_taken = in_rounds(_passes(one, image), rounds, time.process_time)
    two = {name: session(content, 2) for name, content in contents.items() if name != "float16"}
    wall_taken = in_rounds(_passes(two, image), rounds, time.perf_counter)
    for name, row in rows.items():
        row["load_seconds"] = statistics.median(load_taken[name])
        row["pass_seconds"] = statistics.median(pass_taken[name])
        row["faster"] = faster(pass_taken, name)
        row["faster_two_threads"] = faster(wall_taken, name) if name in two else None
    lost = rows[BASE]["roc_auc"] - rows["int8"]["roc_auc"]
    speeds = (rows["int8"]["faster"]["median"], rows["int8"]["faster_two_threads"]["median"])
    say(f"{description.name}: {rows}")
    return {
        "model": description.name,
        "version": description.version,
        "group": description.symmetry.group,
        "rows": rows,
        "auc_lost": lost,
        "int8_pays": lost < LOST and min(speeds) >= FASTER,
    }


def _passes(sessions: Sessions, image: Images) -> dict[str, Callable[[], Any]]:
    return {name: lambda running=running: run(running, image) for name, running in sessions.items()}


def main() -> None:
    """Measure every model that was asked for, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="a TIFF stack of 16 sections, 0 to 12 trained on")
    parser.add_argument("--labels", type=Path, required=True, help="its membranes, above 0 where there is one")
    parser.add_argument("--model", action="append", help="name or path; as often as wanted")
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    raw, labels = tifffile.imread(given.data), tifffile.imread(given.labels) > 0
    stack = ((raw - raw.mean()) / raw.std()).astype(np.float32)
    load = os.getloadavg()[0]
    measured = []
    for name in given.model or [DEFAULT_MODEL]:
        entry = load_model(name)
        measured.append(measure(entry.path, entry.description, stack, labels, given.side, given.rounds))
    publish(
        "quantised",
        {
            "shape": [HELD_OUT.stop - HELD_OUT.start, given.side, given.side],
            "rounds": given.rounds,
            "others_load": load,
            "may_lose": LOST,
            "must_gain": FASTER,
            "models": measured,
        },
    )


if __name__ == "__main__":
    main()
