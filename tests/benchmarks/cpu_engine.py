"""The engine on CPUs: ``python cpu_engine.py [--data STACK.tif]``.

* Against torch on the same network, eager, in both memory formats: the engine must be at least 2.5 times as fast as the
  faster one, in float32, at every size.  Beside it, as a harder opponent, torch on what the exporter makes of the
  network (filters expanded, batch norm folded in); ``--compile`` adds ``torch.compile`` of that.
* Its own choices, changed one at a time: see ``cpu_options``.

Both on crops of a real section: 512 x 512, and a default tile with its halo.  Everything takes turns, each time in a
process of its own, and ratios are taken within a round.  ``--shortest`` only shows that everything runs.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import tifffile
from cpu_options import AS_SHIPPED, changes
from cpu_options import measure as measure_options
from measuring import answer, ask, cores, in_turns, publish, ratios, spread
from numpy.typing import NDArray

from emboundary.model.description import Precision
from emboundary.model.repository import list_models, load_model
from emboundary.service.engine import OnnxEngine
from emboundary.service.errors import EmboundaryError
from emboundary.service.run.tiling import DEFAULT_TILE

SAMPLE = Path(__file__).parents[2] / "service" / "sample" / "raw.ome.tif"
ENGINE, MUST = "engine, float32", 2.5
EAGER = {
    "torch, contiguous": ("trained", "contiguous"),
    "torch, channels last": ("trained", "channels last"),
}
FOLDED = {
    "torch, folded, contiguous": ("folded", "contiguous"),
    "torch, folded, channels last": ("folded", "channels last"),
}
COMPILED = {"torch, folded, compiled": ("folded", "compiled")}
Images = NDArray[np.float32]
Answers = dict[str, list[dict[str, Any]]]


def crops(source: Path, sides: Sequence[int]) -> list[Images]:
    """Normalised crops (1, 1, side, side) of a stack's first section, which is reflected where it is too small."""
    section = tifffile.imread(source, key=0).astype(np.float32)
    section = (section - section.mean()) / section.std()
    short = [(0, max(0, max(sides) - extent)) for extent in section.shape]
    whole = np.pad(section, short, mode="symmetric")
    return [np.ascontiguousarray(whole[None, None, :side, :side]) for side in sides]


def through_engine(model: str, precision: Precision) -> Callable[[Images], Images]:
    """Probabilities by the engine."""
    return OnnxEngine.open(load_model(model), "cpu", precision).run


def through_torch(model: str, form: str, layout: str) -> Callable[[Images], Images]:
    """Probabilities by torch, in inference mode."""
    import torch

    from emboundary.model.folding import expand_and_fold
    from emboundary.model.weights import load_segmenter

    torch.set_num_threads(cores())
    trained = load_segmenter(load_model(model).path.with_name("weights.safetensors")).eval()
    net = expand_and_fold(trained) if form == "folded" else trained
    order = torch.channels_last if layout == "channels last" else torch.contiguous_format
    net = net.to(memory_format=order)  # type: ignore[call-overload]
    mapping = torch.compile(net) if layout == "compiled" else net

    def run(images: Images) -> Images:
        with torch.inference_mode():
            result: Images = torch.sigmoid(mapping(torch.from_numpy(images).contiguous(memory_format=order))).numpy()
        return result

    return run


def measure_network(run: Callable[[Images], Images], images: Sequence[Images], passes: int, kept: Path) -> None:
    """Seconds of a pass at every size; what the first contender found is kept, and the others are compared with it."""
    rows = []
    for image in images:
        found = run(image)  # the first pass of a size is slower
        taken = []
        for _ in range(passes):
            began, cpu_began = time.perf_counter(), time.process_time()
            run(image)
            taken.append((time.perf_counter() - began, time.process_time() - cpu_began))
        side = image.shape[-1]
        reference = kept / f"{side}.npy"
        if not reference.exists():
            np.save(reference, found)
        difference = float(np.abs(found - np.load(reference)).max())
        seconds, cpu_seconds = (statistics.median(part) for part in zip(*taken, strict=True))
        rows.append({"side": side, "seconds": seconds, "cpu_seconds": cpu_seconds, "difference": difference})
    answer(rows=rows)


def runnable(model: str) -> list[Precision]:
    """Precisions that the model has files for."""
    found: list[Precision] = []
    for precision in get_args(Precision):
        try:
            OnnxEngine.open(load_model(model), "cpu", precision)
        except EmboundaryError:
            continue
        found.append(precision)
    return found


def against_torch(model: str, given: argparse.Namespace, kept: Path) -> list[dict[str, Any]]:
    """One model: a result for every size."""
    torch_ways = {**EAGER, **FOLDED, **(COMPILED if given.compile else {})}
    ways = {f"engine, {precision}": ("engine", precision) for precision in runnable(model)} | torch_ways
    contenders = {name: _worker(given, "network", model, *way, kept) for name, way in ways.items()}
    answers = in_turns(contenders, given.rounds)
    results = []
    for number, side in enumerate(given.sides):
        rows = {name: [a["rows"][number] for a in found] for name, found in answers.items()}
        best = min(EAGER, key=lambda name, rows=rows: statistics.median(row["seconds"] for row in rows[name]))
        results.append(
            {
                "model": model,
                "side": side,
                "fastest_eager": best,
                "rows": {
                    name: {
                        "seconds": spread([row["seconds"] for row in found]),
                        "cpu_seconds": spread([row["cpu_seconds"] for row in found]),
                        "engine_faster": spread(ratios(rows, name, ENGINE, "seconds")),
                        "difference": max(row["difference"] for row in found),
                        "peak_bytes": max(a["peak_bytes"] for a in answers[name]),
                    }
                    for name, found in rows.items()
                },
                "fast_enough": spread(ratios(rows, best, ENGINE, "seconds"))["median"] >= MUST,
            }
        )
    return results


def choices(model: str, given: argparse.Namespace) -> list[dict[str, Any]]:
    """One row for every change."""
    contenders = {name: _worker(given, "options", model, name) for name in changes()}
    answers = in_turns(contenders, given.rounds)
    flat: Answers = {
        name: [
            {f"{key}_{row['side']}": row[key] for row in a["rows"] for key in ("seconds", "cpu_seconds")} | a
            for a in found
        ]
        for name, found in answers.items()
    }
    figures = [f"{key}_{side}" for side in given.sides for key in ("seconds", "cpu_seconds")]
    figures += ["load_seconds", "beside_seconds", "beside_mib_per_second", "peak_bytes", "held_bytes"]
    return [
        {
            "change": name,
            **{key: spread([a[key] for a in found]) for key in figures},
            "over_shipped": {
                str(side): spread(ratios(flat, name, AS_SHIPPED, f"seconds_{side}")) for side in given.sides
            },
            "beside_over_shipped": spread(ratios(flat, name, AS_SHIPPED, "beside_seconds")),
        }
        for name, found in flat.items()
    ]


def _worker(given: argparse.Namespace, *what: object) -> Callable[[], dict[str, Any]]:
    words = ["--data", given.data, "--passes", given.passes, "--sides", *given.sides]
    return lambda: ask([__file__, *words, "--work", *what])


def work(given: argparse.Namespace) -> None:
    """One contender, in this process."""
    kind, model, *rest = given.work
    images = crops(given.data, given.sides)
    if kind == "options":
        answer(**measure_options(rest[0], model, images, given.passes))
        return
    way, variant, kept = rest
    run = through_engine(model, variant) if way == "engine" else through_torch(model, way, variant)
    measure_network(run, images, given.passes, Path(kept))


def main() -> None:
    """Measure all and write docs/benchmarks/cpu_engine.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=SAMPLE, help="a TIFF stack; else the bundled sample")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--passes", type=int, default=3, help="of each size in each round")
    parser.add_argument("--model", action="append", help="name or path; as often as wanted; else all that are bundled")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument(
        "--shortest", action="store_true", help="one round of one pass of small images; published nowhere"
    )
    parser.add_argument("--sides", type=int, nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--work", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    models = given.model or list(list_models())
    if given.work:
        work(given)
        return
    _, halo, _ = load_model(models[0]).description.halo
    given.sides = given.sides or [512, DEFAULT_TILE + 2 * halo]
    if given.shortest:
        given.rounds, given.passes, given.sides, models = 1, 1, [64, 128], models[:1]
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as scratch:
        compared = []
        for model in models:
            kept = Path(scratch) / f"{len(compared)}"
            kept.mkdir()
            compared += against_torch(model, given, kept)
    result = {
        "rounds": given.rounds,
        "passes": given.passes,
        "sides": given.sides,
        "others_load": load,
        "must_gain": MUST,
        "against_torch": compared,
        "choices_of": models[0],
        "choices": choices(models[0], given),
    }
    with tempfile.TemporaryDirectory() as nowhere:
        publish("cpu_engine", result, *([Path(nowhere)] if given.shortest else []))


if __name__ == "__main__":
    main()
