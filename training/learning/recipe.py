"""How anything here learns: the optimiser, its schedule, and the arithmetic, whatever the network and the data."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, model_validator

from emboundary.training.strict import Fraction, NotNegative, PositiveInt, Strict


class OptimiserConfig(Strict):
    """The optimiser, linear warm-up, a schedule, exponential moving average of the weights.

    Attributes:
        steps: optimiser steps.
        learning_rate: its peak.
        algorithm: ``adamw`` (with ``weight_decay`` 0 that is Adam), or ``sgd`` with ``momentum``.
        momentum: of ``sgd``; heavy ball.
        warmup: fraction of the steps in which the rate rises to the peak.
        schedule: how it falls from there: half a ``cosine``, a straight line (``linear``: one cycle), ``exponential``
            down to ``factor`` of the peak at the end, in ``steps``, by ``factor`` at each of the ``milestones``, or
            not at all (``constant``) until the last ``decay`` of the steps, in which a straight line leads to zero:
            what was trained so far does not depend on how long it goes on.
        milestones: of ``steps``: fractions of all steps, in order.
        factor: of ``exponential`` and ``steps``.
        decay: of ``constant``: the fraction of all steps at the end in which the rate falls.
        weight_decay: decoupled with ``adamw``, an L2 penalty with ``sgd``.
        clip: largest norm of the gradient.
        ema_steps: time constant of the moving average, in steps; 0 for none.
    """

    steps: PositiveInt
    learning_rate: Annotated[float, Field(gt=0)]
    algorithm: Literal["adamw", "sgd"] = "adamw"
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    warmup: Fraction = 0.05
    schedule: Literal["cosine", "linear", "exponential", "steps", "constant"] = "cosine"
    milestones: Annotated[tuple[Fraction, ...], Field(strict=False)] = ()
    factor: Annotated[float, Field(gt=0, le=1)] = 0.1
    decay: Fraction = 0.15
    weight_decay: NotNegative = 0.01
    clip: Annotated[float, Field(gt=0)] = 1.0
    ema_steps: Annotated[int, Field(ge=0)] = 100

    @model_validator(mode="after")
    def _has_milestones_in_order(self) -> OptimiserConfig:
        if (self.schedule == "steps") != bool(self.milestones):
            raise ValueError("milestones belong to the schedule 'steps', which needs at least one")
        if any(a >= b for a, b in pairwise(self.milestones)):
            raise ValueError("milestones must be fractions of all steps in ascending order, e.g. [0.5, 0.75]")
        return self


class LearningConfig(Strict):
    """What a training run needs, besides its network and its data.

    Attributes:
        name: of the run, in letters, digits, ``.``, ``_`` and ``-``.
        seed: of the first weights, the batches and their changes.
        precision: ``float32``, ``bfloat16`` for mixed precision (weights stay float32), or ``auto``: bfloat16 on
            what computes in it, float32 elsewhere.
        channels_last: keep feature maps with the channel fastest, as GPUs' tensor cores like them.
        compile: let ``torch.compile`` fuse the layers; minutes at the start.
        lipschitz: weight of the penalty on convolutions that expand (``LipschitzPenalty``); 0: none.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    seed: Annotated[int, Field(ge=0)] = 0
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    channels_last: bool = False
    compile: bool = False
    lipschitz: NotNegative = 0.0
    optimiser: OptimiserConfig


def learning_rate(config: OptimiserConfig, step: int) -> float:
    """Linear warm-up to the peak, then the schedule; cosine and lines reach zero behind the last step."""
    warm = max(1, round(config.warmup * config.steps))
    if step < warm:
        return config.learning_rate * (step + 1) / warm
    progress = (step - warm) / max(1, config.steps - warm)
    return config.learning_rate * _left(config, progress, step / config.steps)


def _left(config: OptimiserConfig, progress: float, of_all: float) -> float:
    """What is left of the peak; ``progress`` since the warm-up and ``of_all`` steps are fractions."""
    match config.schedule:
        case "cosine":
            return 0.5 * (1 + math.cos(math.pi * progress))
        case "linear":
            return 1 - progress
        case "exponential":
            return math.pow(config.factor, progress)
        case "steps":
            passed = sum(of_all >= milestone for milestone in config.milestones)
            return math.pow(config.factor, passed)
        case "constant":
            return 1.0 if of_all <= 1 - config.decay else (1 - of_all) / config.decay
