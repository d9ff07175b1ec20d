"""What symmetry costs: a p4m layer against an ordinary convolution of the same planar channels, and the kept bank.

    python tests/benchmarks/group_cost.py [--rounds 20] [--threads 2]

Both layers take turns in one process, so that drift of the machine's speed cancels in the ratio of a round; each
figure is the shortest of a few passes, which leaves out those that another process interrupted.  The ordinary layer
has the same number of input and output channels and, the filters being expanded, computes the same sums.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from measuring import publish, say, spread
from torch import Tensor, nn

from emboundary.model.group_conv import Fields, GroupConv2d
from emboundary.model.groups import D4

# planar channels, side of the image, images: from many channels on few pixels to the reverse
SHAPES = ((64, 32, 8), (64, 64, 8), (64, 128, 4), (128, 32, 8), (128, 64, 4), (256, 32, 4), (256, 64, 4))
KERNEL = 3
PASSES = 3

Pass = Callable[[], object]


def trained(layer: nn.Module, x: Tensor) -> Pass:
    """Forward and backward, to the input and to the weights."""
    slope = torch.ones_like(layer(x))

    def run() -> None:
        for parameter in layer.parameters():
            parameter.grad = None
        x.grad = None
        layer(x).backward(slope)

    return run


def inferred(layer: nn.Module, x: Tensor) -> Pass:
    """Forward only, gradients off."""

    def run() -> Tensor:
        with torch.inference_mode():
            result: Tensor = layer(x)
            return result

    return run


class Anew(nn.Module):
    """A layer that makes its filter bank for every pass, as it does in training."""

    def __init__(self, layer: GroupConv2d) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(x, self.layer.expand(), padding=self.layer.padding)


def shortest(run: Pass) -> float:
    """Seconds of the shortest of a few passes."""
    taken = []
    for _ in range(PASSES):
        begin = time.perf_counter()
        run()
        taken.append(time.perf_counter() - begin)
    return min(taken)


def in_turns(runs: dict[str, Pass], rounds: int) -> dict[str, list[float]]:
    """Seconds of every contender in every round; each round begins with another one."""
    for run in runs.values():
        run()
    names, taken = list(runs), {name: [0.0] * rounds for name in runs}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            taken[name][number] = shortest(runs[name])
    return taken


def against(taken: dict[str, list[float]], name: str, base: str) -> dict[str, float]:
    return spread([a / b for a, b in zip(taken[name], taken[base], strict=True)])


def measure(channels: int, side: int, images: int, rounds: int) -> dict[str, Any]:
    """One shape: training and inference, in seconds, and their ratios."""
    torch.manual_seed(0)
    group = GroupConv2d(D4, Fields.from_channels(D4, channels), channels // D4.order, KERNEL)
    plain = nn.Conv2d(channels, channels, KERNEL, padding=KERNEL // 2, bias=False)
    x = torch.randn(images, channels, side, side)
    learning = in_turns(
        {name: trained(layer, x.clone().requires_grad_()) for name, layer in (("p4m", group), ("plain", plain))},
        rounds,
    )
    contenders = {"kept": group.eval(), "anew": Anew(group), "plain": plain}
    inference = in_turns({name: inferred(layer, x) for name, layer in contenders.items()}, rounds)
    result = {
        "planar_channels": channels,
        "side": side,
        "images": images,
        "training_seconds": {name: spread(values) for name, values in learning.items()},
        "training_over_plain": against(learning, "p4m", "plain"),
        "inference_seconds": {name: spread(values) for name, values in inference.items()},
        "inference_kept_over_plain": against(inference, "kept", "plain"),
        "inference_anew_over_plain": against(inference, "anew", "plain"),
        "parameters": {"p4m": sum(p.numel() for p in group.parameters()), "plain": plain.weight.numel()},
    }
    say(f"{channels} channels, {images} x {side} x {side}: {result['training_over_plain']['median']:.3f} in training")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    shapes = [measure(*shape, arguments.rounds) for shape in SHAPES]
    worst = max(shape["training_over_plain"]["median"] for shape in shapes)
    publish(
        "group_cost",
        {
            "rounds": arguments.rounds,
            "threads": arguments.threads,
            "kernel": KERNEL,
            "shapes": shapes,
            "worst_training_over_plain": worst,
        },
    )


if __name__ == "__main__":
    main()
