"""How fast the training loop runs, and what helps it: ``python training_speed.py``.

Each of the three small models trains for a few steps on crops of synthetic sections, in turns and each time in a
process of its own: as it is shipped; with feature maps kept channels-last; on half of the threads (two such runs side
by side use the machine as one does).  ``--mixed`` adds bfloat16, which processors without it imitate many times slower;
``--compile`` adds ``torch.compile``, whose first step takes minutes.  Megapixels of crops per second, the making of the
crops included; the first steps do not count.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from measuring import answer, ask, cores, in_turns, publish, ratios, spread

from emboundary.training.config import load_config
from emboundary.training.crops.data import LabelledVolume
from emboundary.training.learning.loop import StepReport
from emboundary.training.learning.train import train
from emboundary.training.synthetic import membranes

CONFIGS = Path(__file__).parents[2] / "training" / "configs"
MODELS = ("d4", "plain", "paper")
VARIANTS: dict[str, dict[str, Any]] = {
    "as shipped": {},
    "channels last": {"channels_last": True},
    "half of the threads": {},
}
COMPILED: dict[str, dict[str, Any]] = {"compiled": {"compile": True}}
MIXED: dict[str, dict[str, Any]] = {"bfloat16": {"precision": "bfloat16"}}


def measure(model: str, changes: dict[str, Any], threads: int, steps: int, device: str) -> None:
    """One run in this process; the median step behind the first two."""
    torch.set_num_threads(threads)
    config = load_config(CONFIGS / f"{model}.toml").model_copy(update={**changes, "start": None})
    raw, target = membranes((2, 512, 512), seed=0)
    volume = LabelledVolume("synthetic", ((raw - 128.0) / 64.0).astype("float32"), target > 0, 128.0, 64.0)
    at: list[float] = []

    def note(_: StepReport) -> None:
        at.append(time.perf_counter())

    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        train(config, (volume,), Path(folder), device=torch.device(device), report=note, stop_after=steps + 2)
    step = statistics.median(b - a for a, b in pairwise(at[1:]))
    pixels = config.sampling.pixels
    answer(seconds_per_step=step, first_step=at[0] - began, megapixels_per_second=pixels / step / 1e6)


def main() -> None:
    """Measure all and write docs/benchmarks/training_speed.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--mixed", action="store_true")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    if wanted.one:
        model, changes, threads = wanted.one
        measure(model, json.loads(changes), int(threads), wanted.steps, wanted.device)
        return
    variants = {**VARIANTS, **(COMPILED if wanted.compile else {}), **(MIXED if wanted.mixed else {})}
    rows = []
    for model in MODELS:
        contenders = {}
        for name, changes in variants.items():
            threads = max(1, cores() // 2) if name.startswith("half") else cores()
            words = ["--steps", wanted.steps, "--device", wanted.device, "--one", model, json.dumps(changes), threads]
            contenders[name] = lambda words=words: ask([__file__, *words])
        answers = in_turns(contenders, wanted.rounds)
        for name, found in answers.items():
            rows.append(
                {
                    "model": model,
                    "variant": name,
                    "megapixels_per_second": spread([a["megapixels_per_second"] for a in found]),
                    "first_step_seconds": spread([a["first_step"] for a in found]),
                    "over_shipped": spread(ratios(answers, name, "as shipped", "megapixels_per_second")),
                }
            )
    publish("training_speed", {"device": wanted.device, "rounds": wanted.rounds, "steps": wanted.steps, "rows": rows})


if __name__ == "__main__":
    main()
