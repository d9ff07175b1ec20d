"""What came out of one variant with one seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Times = Mapping[str, Sequence[float]]
"""By variant, the time that its network takes over that of the first, once for each round; empty if not measured."""


@dataclass(frozen=True)
class Outcome:
    """A variant's costs and scores.

    Attributes:
        parameters: learned values.
        flops: multiplications and additions of the expanded network, per ``per``.
        per: ``px`` of the map for segmenters, ``image`` for classifiers.
        final_loss: mean of the last 200 steps.
        scores: by their names, which are the columns of the page: errors in percent, losses in nats, areas.
        curve: what was scored along the way, in the order of the steps; empty if only the end was.
        seconds: of training, and of scoring along the way; None: not known.
    """

    variant: str
    seed: int
    parameters: int
    flops: float
    per: str
    final_loss: float
    scores: dict[str, float]
    curve: list[dict[str, float]]
    seconds: float | None
