"""How fast the whole training loop runs, before and after what was done for it: ``python training_speed.py``.

The networks of the campaign train for a few steps on crops of synthetic sections, with all of their augmentation, in
turns and each time in processes of their own:

- ``before``: float32, with torch's 3x3 mean;
- ``float32``: the mean as shifted maps, whose gradient is as fast as itself;
- ``as shipped``: and bfloat16 where the processor has it (``precision = "auto"``);
- ``side by side``: as shipped, one such process on every core at a time, which is how the campaign runs;
- ``all threads``: as shipped, one process on all cores.

All but the last compute with one thread.  Pixels of crops per second and core; the first steps do not count.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from measuring import answer, ask, cores, in_turns, publish, ratios, spread
from torch import Tensor

from emboundary.model import blocks
from emboundary.training.config import load_config
from emboundary.training.crops.data import LabelledVolume
from emboundary.training.learning.loop import StepReport
from emboundary.training.learning.train import train
from emboundary.training.synthetic import membranes

CONFIGS = Path(__file__).parents[2] / "training" / "configs" / "flagship"
MODELS = ("d4", "plain", "d4-1.6x")
SHIPPED = "as shipped"
PRECISIONS = {"before": "float32", "float32": "float32"}
UNCOUNTED = 3


def torch_mean(x: Tensor, *, training: bool) -> Tensor:  # noqa: ARG001
    """The 3x3 mean as it was."""
    return F.avg_pool2d(x, 3, stride=1, padding=1)


def measure(model: str, variant: str, threads: int, steps: int) -> None:
    """One run in this process; the median step behind the first ones."""
    torch.set_num_threads(threads)
    if variant == "before":
        blocks.box_mean = torch_mean
    config = load_config(CONFIGS / f"{model}.toml").model_copy(
        update={"start": None, "precision": PRECISIONS.get(variant, "auto")}
    )
    raw, target = membranes((2, 512, 512), seed=0)
    volume = LabelledVolume("synthetic", ((raw - 128.0) / 64.0).astype("float32"), target > 0, 128.0, 64.0)
    at: list[float] = []

    def note(_: StepReport) -> None:
        at.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        train(config, (volume,), Path(folder), device=torch.device("cpu"), report=note, stop_after=steps + UNCOUNTED)
    step = statistics.median(b - a for a, b in pairwise(at[UNCOUNTED - 1 :]))
    answer(pixels_per_second_and_core=config.sampling.pixels / step / threads)


def contender(model: str, variant: str, steps: int) -> Callable[[], dict[str, Any]]:
    """What asks a worker, or as many as there are cores at a time: their mean."""
    threads = cores() if variant == "all threads" else 1
    processes = cores() if variant == "side by side" else 1
    words = [__file__, "--steps", steps, "--one", json.dumps([model, variant, threads])]

    def asked() -> dict[str, Any]:
        with ThreadPoolExecutor(processes) as pool:
            found = list(pool.map(lambda _: ask(words), range(processes)))
        return {"pixels_per_second_and_core": statistics.mean(f["pixels_per_second_and_core"] for f in found)}

    return asked


def main() -> None:
    """Measure all and write docs/benchmarks/training_speed.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    if wanted.one:
        model, variant, threads = json.loads(wanted.one)
        measure(model, variant, threads, wanted.steps)
        return
    rows = []
    for model in MODELS:
        variants = ("before", "float32", SHIPPED, "side by side", "all threads")
        answers = in_turns({name: contender(model, name, wanted.steps) for name in variants}, wanted.rounds)
        for name, found in answers.items():
            rows.append(
                {
                    "model": model,
                    "variant": name,
                    "pixels_per_second_and_core": spread([a["pixels_per_second_and_core"] for a in found]),
                    "over_before": spread(ratios(answers, name, "before", "pixels_per_second_and_core")),
                }
            )
    publish("training_speed", {"rounds": wanted.rounds, "steps": wanted.steps, "rows": rows})


if __name__ == "__main__":
    main()
