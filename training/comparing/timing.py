"""Seconds, in interleaved rounds.

Every contestant runs once per round on the same section, so that a machine whose speed drifts slows all of them alike;
ratios are taken within each round.  Training takes a few steps of each model per round, likewise.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from emboundary.service.engine import ModelEngine
from emboundary.service.preparing.intensity import Intensity
from emboundary.service.run.inference import predict_array
from emboundary.training.comparing.records import PROTOCOL, Passes, Timing, TimingRow, environment
from emboundary.training.config import TrainConfig
from emboundary.training.crops.data import LabelledVolume
from emboundary.training.learning.loop import StepReport
from emboundary.training.learning.train import train
from emboundary.training.scoring.evaluate import equivariance_error

# The first step of a training is slower than the others, and is not counted.
_STEPS = 6
_LARGEST = 256


@dataclass(frozen=True)
class Contestant:
    """A model, its weights, and how many passes it takes."""

    model: str
    passes: Passes
    weights_sha256: str
    engine: ModelEngine
    config: TrainConfig


def time_contestants(
    contestants: tuple[Contestant, ...],
    volume: LabelledVolume,
    trained: tuple[LabelledVolume, ...],
    *,
    rounds: int,
    device: torch.device,
    report: Callable[[str], None] = lambda _: None,
) -> Timing:
    """Time the mapping of one section, and the training of those that take one pass.

    Args:
        contestants: who takes part.
        volume: its first section is mapped.
        trained: what the training steps draw their crops from.
        rounds: of each.
        device: that trains.
        report: told what is being done.

    Raises:
        ValueError: fewer than one round, or no contestant.
    """
    if not contestants:
        raise ValueError("contestants is empty; there is nothing to time")
    if rounds < 1:
        raise ValueError(f"rounds is {rounds}; at least one is needed to measure seconds")
    for contestant in contestants:
        _seconds(contestant, volume, tta=False)  # memory is at its size, and caches are warm
    report(f"timing the mapping, {rounds} rounds")
    mapping = [[_seconds(c, volume, tta=c.passes == 8) for c in contestants] for _ in range(rounds)]
    report(f"timing the training, {rounds} rounds")
    training = [
        [_training_speed(c.config, trained, device) if c.passes == 1 else math.nan for c in contestants]
        for _ in range(rounds)
    ]
    rows = tuple(
        TimingRow(
            model=c.model,
            passes=c.passes,
            weights_sha256=c.weights_sha256,
            parameters=c.engine.description.parameters,
            flops_per_pixel=c.engine.description.flops_per_pixel * c.passes,
            seconds=tuple(one[i] for one in mapping),
            equivariance_error=_error(c, volume),
            training_pixels_per_second=tuple(one[i] for one in training) if c.passes == 1 else (),
        )
        for i, c in enumerate(contestants)
    )
    height, width = volume.raw.shape[1:]
    return Timing(
        protocol=PROTOCOL,
        environment=environment(contestants[0].engine.device),
        volume=volume.name,
        shape=(height, width),
        threads=torch.get_num_threads(),
        rows=rows,
    )


def _seconds(contestant: Contestant, volume: LabelledVolume, *, tta: bool) -> float:
    started = time.perf_counter()
    predict_array(contestant.engine, volume.raw[:1], Intensity(0.0, 1.0), tta=tta)
    return time.perf_counter() - started


def _training_speed(config: TrainConfig, volumes: tuple[LabelledVolume, ...], device: torch.device) -> float:
    """Pixels of crops per second, data and optimiser included."""
    at: list[float] = []

    def note(_: StepReport) -> None:
        at.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        train(_of_steps(config), volumes, Path(folder), device=device, report=note, stop_after=_STEPS)
    return (len(at) - 1) * config.sampling.pixels / (at[-1] - at[0])


def _of_steps(config: TrainConfig) -> TrainConfig:
    """The configuration with steps enough for a measurement, however short the study's runs are."""
    steps = max(config.optimiser.steps, _STEPS)
    return config.model_copy(update={"optimiser": config.optimiser.model_copy(update={"steps": steps})})


def _error(contestant: Contestant, volume: LabelledVolume) -> float:
    corner: NDArray[np.float32] = volume.raw[0]
    step = math.lcm(*contestant.engine.footprint.stride)
    side = step * (min(_LARGEST, *corner.shape) // step)
    return equivariance_error(contestant.engine, corner[:side, :side], tta=contestant.passes == 8)
