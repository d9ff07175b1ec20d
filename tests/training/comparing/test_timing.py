from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from emboundary.model.geometry import Footprint
from emboundary.training.comparing import timing
from emboundary.training.comparing.timing import Contestant, time_contestants
from emboundary.training.config import TrainConfig
from emboundary.training.crops.data import LabelledVolume

Map = NDArray[np.float32]
MakeConfig = Callable[..., TrainConfig]

CPU = torch.device("cpu")
FOOTPRINT = Footprint((0, 8, 8), (1, 8, 8))


@dataclass(frozen=True)
class Described:
    """What is taken from a model's description."""

    parameters: int = 10
    flops_per_pixel: float = 100.0


DESCRIPTION = Described()


@dataclass(frozen=True)
class Darkness:
    """Dark is boundary, the more so the further right: a network that is not symmetric."""

    slope: float
    footprint: Footprint = FOOTPRINT
    outputs: tuple[str, ...] = ("boundary",)
    device: str = "cpu"
    description: Described = DESCRIPTION

    def run(self, images: Map) -> Map:
        return (1 / (1 + np.exp(images - np.linspace(0, self.slope, images.shape[-1])))).astype(np.float32)


@pytest.fixture
def contestants(make_config: MakeConfig) -> tuple[Contestant, ...]:
    lopsided: Any = Darkness(2.0)
    even: Any = Darkness(0.0)
    config = make_config()
    return (
        Contestant("plain", 1, "1" * 64, lopsided, config),
        Contestant("plain", 8, "1" * 64, lopsided, config),
        Contestant("d4", 1, "d" * 64, even, config),
    )


def test_contestants_are_timed_in_turns_and_training_too(
    contestants: tuple[Contestant, ...], volume: LabelledVolume
) -> None:
    told: list[str] = []
    found = time_contestants(contestants, volume, (volume,), rounds=2, device=CPU, report=told.append)
    assert [(row.model, row.passes) for row in found.rows] == [("plain", 1), ("plain", 8), ("d4", 1)]
    assert all(len(row.seconds) == 2 and min(row.seconds) > 0 for row in found.rows)
    assert [len(row.training_pixels_per_second) for row in found.rows] == [2, 0, 2]
    assert [row.flops_per_pixel for row in found.rows] == [100.0, 800.0, 100.0]
    assert (found.volume, found.shape) == ("synthetic", (64, 72))
    assert told == ["timing the mapping, 2 rounds", "timing the training, 2 rounds"]


def test_the_violation_of_the_symmetry_is_measured(
    contestants: tuple[Contestant, ...], volume: LabelledVolume, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "_training_speed", lambda *_: 1.0)
    one, eight, even = time_contestants(contestants, volume, (volume,), rounds=1, device=CPU).rows
    assert one.equivariance_error > 0.1
    assert eight.equivariance_error < 1e-6
    assert even.equivariance_error < 1e-6


def test_each_round_has_every_contestant_once(
    contestants: tuple[Contestant, ...], volume: LabelledVolume, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock: Iterator[int] = iter(range(100))
    monkeypatch.setattr(timing, "_seconds", lambda *_, **__: float(next(clock)))
    monkeypatch.setattr(timing, "_training_speed", lambda *_: 1.0)
    rows = time_contestants(contestants, volume, (volume,), rounds=2, device=CPU).rows
    # The first three runs are there to warm up.
    assert [row.seconds for row in rows] == [(3.0, 6.0), (4.0, 7.0), (5.0, 8.0)]


def test_the_first_training_step_is_not_counted(
    make_config: MakeConfig, volume: LabelledVolume, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([10.0, 11.0, 12.0, 13.0, 14.0, 15.0])

    def train(config: TrainConfig, *_: object, report: Callable[[object], None], stop_after: int, **__: object) -> None:
        assert config.optimiser.steps >= stop_after == 6
        for _ in range(stop_after):
            report(None)

    monkeypatch.setattr(timing, "train", train)
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: next(times)))
    short = make_config({"optimiser.steps": 3})
    assert timing._training_speed(short, (volume,), CPU) == 2 * 32 * 32


def test_no_rounds_and_no_contestants_are_refused(contestants: tuple[Contestant, ...], volume: LabelledVolume) -> None:
    with pytest.raises(ValueError, match=r"^rounds is 0; at least one is needed to measure seconds$"):
        time_contestants(contestants, volume, (volume,), rounds=0, device=CPU)
    with pytest.raises(ValueError, match=r"^contestants is empty; there is nothing to time$"):
        time_contestants((), volume, (volume,), rounds=1, device=CPU)
