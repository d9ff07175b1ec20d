"""The comparison: several models, one pass or eight, on the same held-out sections, in one run.

Seconds are measured in rounds, every contestant once per round on the same section, so that a machine whose
speed drifts slows all of them alike; the ratio to the first contestant is taken within each round.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import median
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from emboundary.model import scores
from emboundary.service.engine import Engine
from emboundary.service.preparing.intensity import Intensity
from emboundary.service.run.inference import predict_array
from emboundary.training.data import LabelledVolume
from emboundary.training.evaluate import Scores, VotingEngine, equivariance_error, scores_of, segment

Passes = Literal["one", "mean", "vote"]


@dataclass(frozen=True)
class Contestant:
    """A model and how its passes are joined.

    Attributes:
        label: its row's name.
        engine: the model.
        passes: ``one``; ``mean`` of the 8 aligned probabilities; ``vote``, the share of 8 votes.
    """

    label: str
    engine: Engine
    passes: Passes = "one"


@dataclass(frozen=True)
class Row:
    """One line of the comparison.

    Attributes:
        seconds: median over the rounds, for one section.
        relative_seconds: median over the rounds of the ratio to the first contestant in the same round.
        equivariance_error: largest ``|f(g x) - g f(x)|`` over the 8 rotations and flips, in probability.
    """

    label: str
    passes: int
    scores: Scores
    seconds: float
    relative_seconds: float
    equivariance_error: float


@dataclass(frozen=True)
class Comparison:
    """Rows, and what the pictures are drawn from."""

    rows: tuple[Row, ...]
    curves: tuple[scores.Curve, ...]
    maps: tuple[NDArray[np.float32], ...]


def compare(
    contestants: tuple[Contestant, ...],
    volume: LabelledVolume,
    *,
    rounds: int,
    report: Callable[[str], None] = lambda _: None,
) -> Comparison:
    """Run every contestant on every section, then time them in rounds on the first.

    Raises:
        ValueError: fewer than one round, or no contestant.
    """
    if not contestants:
        raise ValueError("contestants is empty; the first is what the others' seconds are compared with")
    if rounds < 1:
        raise ValueError(f"rounds is {rounds}; at least one is needed to measure seconds")
    maps, curves = [], []
    for contestant in contestants:
        report(f"scoring {contestant.label}")
        probability, _ = segment(_voting(contestant), volume, tta=contestant.passes != "one")
        maps.append(probability)
        curves.append(scores.curve(volume.target, probability))
    report(f"timing, {rounds} rounds")
    times = np.array([[_seconds(c, volume) for c in contestants] for _ in range(rounds)])
    errors = [_error(c, volume) for c in contestants]
    rows = tuple(
        Row(
            label=contestant.label,
            passes=1 if contestant.passes == "one" else 8,
            scores=scores_of(curve),
            seconds=median(times[:, i]),
            relative_seconds=median(times[:, i] / times[:, 0]),
            equivariance_error=errors[i],
        )
        for i, (contestant, curve) in enumerate(zip(contestants, curves, strict=True))
    )
    return Comparison(rows, tuple(curves), tuple(maps))


def _voting(contestant: Contestant) -> Engine:
    return VotingEngine(contestant.engine) if contestant.passes == "vote" else contestant.engine


def _seconds(contestant: Contestant, volume: LabelledVolume) -> float:
    started = time.perf_counter()
    predict_array(_voting(contestant), volume.raw[:1], Intensity(0.0, 1.0), tta=contestant.passes != "one")
    return time.perf_counter() - started


def _error(contestant: Contestant, volume: LabelledVolume) -> float:
    step = math.lcm(*contestant.engine.footprint.stride)
    side = step * (min(256, *volume.raw.shape[1:]) // step)
    tta = contestant.passes != "one"
    return equivariance_error(_voting(contestant), volume.raw[0, :side, :side], tta=tta)


def as_markdown(rows: tuple[Row, ...]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| model | passes | ROC AUC | average precision | best F1 | seconds per section | relative to plain "
        "| equivariance error |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.label} | {r.passes} | {r.scores.roc_auc:.5f} | {r.scores.average_precision:.4f} "
        f"| {r.scores.best_f1:.4f} | {r.seconds:.2f} | {r.relative_seconds:.2f} | {r.equivariance_error:.1e} |"
        for r in rows
    ]
    return "\n".join(lines) + "\n"


def as_records(rows: tuple[Row, ...]) -> list[dict[str, object]]:
    """The rows as plain objects for JSON."""
    return [asdict(row) for row in rows]
