from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from emboundary.model.inception import Symmetry
from emboundary.training.config import TrainConfig, load_config
from emboundary.training.crops.data import LabelledVolume
from emboundary.training.learning import train as train_module
from emboundary.training.learning.checkpoint import CheckpointError
from emboundary.training.learning.loop import CHECKPOINT, DivergenceError, StepReport, Stopped
from emboundary.training.learning.recipe import OptimiserConfig, learning_rate
from emboundary.training.learning.state import TrainState, new_state
from emboundary.training.learning.train import Segmentation, train
from emboundary.training.synthetic import membranes

MakeConfig = Callable[..., TrainConfig]

CPU = torch.device("cpu")
SHIPPED = [Path(train_module.__file__).parents[1] / "configs" / f"{name}.toml" for name in ("d4", "plain", "paper")]


def tensors(value: object) -> list[Tensor]:
    """All tensors inside nested dictionaries and lists, in order."""
    if isinstance(value, Tensor):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [tensor for part in inner for tensor in tensors(part)]


def same(a: TrainState, b: TrainState) -> bool:
    """Whether two states agree in every bit."""
    pairs = [
        pair
        for name in ("network", "average", "optimiser")
        for pair in zip(tensors(getattr(a, name).state_dict()), tensors(getattr(b, name).state_dict()), strict=True)
    ]
    assert len(pairs) > 100
    return (a.step, a.losses) == (b.step, b.losses) and all(torch.equal(x, y) for x, y in pairs)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("symmetry", ["plain", "paper", "d4"])
def test_a_resumed_run_ends_with_the_same_bits(
    tmp_path: Path, make_config: MakeConfig, volume: LabelledVolume, symmetry: Symmetry, precision: str
) -> None:
    config = make_config({"model.symmetry": symmetry, "precision": precision})
    straight = train(config, (volume,), tmp_path / "straight", device=CPU)
    interrupted = train(config, (volume,), tmp_path / "resumed", device=CPU, stop_after=3)
    assert interrupted.step == 3
    resumed = train(config, (volume,), tmp_path / "resumed", device=CPU)
    assert resumed.step == config.optimiser.steps
    assert same(resumed, straight)
    assert not same(interrupted, straight)


def test_a_run_killed_between_checkpoints_goes_back_to_the_last_one(
    tmp_path: Path, make_config: MakeConfig, volume: LabelledVolume
) -> None:
    class KilledError(Exception):
        pass

    def kill(report: StepReport) -> None:
        if report.step == 5:
            raise KilledError

    config = make_config()
    with pytest.raises(KilledError):
        train(config, (volume,), tmp_path / "killed", device=CPU, checkpoint_every=2, report=kill)
    steps: list[int] = []
    resumed = train(config, (volume,), tmp_path / "killed", device=CPU, report=lambda r: steps.append(r.step))
    assert steps == [5, 6]
    assert same(resumed, train(config, (volume,), tmp_path / "straight", device=CPU))


def test_a_finished_run_is_not_trained_again(tmp_path: Path, make_config: MakeConfig, volume: LabelledVolume) -> None:
    first = train(make_config(), (volume,), tmp_path, device=CPU)
    written = (tmp_path / CHECKPOINT).stat().st_mtime_ns
    again = train(make_config(), (volume,), tmp_path, device=CPU)
    assert same(first, again)
    assert (tmp_path / CHECKPOINT).stat().st_mtime_ns == written


def test_the_seed_alone_reproduces_a_run(tmp_path: Path, make_config: MakeConfig, volume: LabelledVolume) -> None:
    runs = []
    for name, seed, elsewhere in (("a", 0, 1), ("b", 0, 2), ("c", 1, 1)):
        torch.manual_seed(elsewhere)
        np.random.seed(elsewhere)  # noqa: NPY002, a global state that must not matter
        config = make_config({"seed": seed})
        runs.append(train(config, (volume,), tmp_path / name, device=CPU))
    assert same(runs[0], runs[1])
    assert runs[0].losses != runs[2].losses


def test_training_leaves_the_global_random_numbers_alone(
    tmp_path: Path, make_config: MakeConfig, volume: LabelledVolume
) -> None:
    torch.manual_seed(7)
    undisturbed = torch.rand(3)
    torch.manual_seed(7)
    train(make_config(), (volume,), tmp_path, device=CPU, stop_after=1)
    assert torch.equal(torch.rand(3), undisturbed)


def test_the_checkpoint_of_another_configuration_is_refused(
    tmp_path: Path, make_config: MakeConfig, volume: LabelledVolume
) -> None:
    train(make_config(), (volume,), tmp_path, device=CPU, stop_after=1)
    with pytest.raises(CheckpointError, match="was written under another configuration"):
        train(make_config({"seed": 1}), (volume,), tmp_path, device=CPU)


def weights_of(config: TrainConfig, volume: LabelledVolume, folder: Path, steps: int) -> tuple[Tensor, Tensor]:
    """Weights and averaged weights after some steps, each as one vector, batch norm statistics among them."""
    state = train(config, (volume,), folder, device=CPU, stop_after=steps)
    now, mean = (
        torch.cat([t.double().reshape(-1) for t in net.state_dict().values() if t.is_floating_point()])
        for net in (state.network, state.average)
    )
    return now, mean


def test_the_average_starts_as_a_plain_mean_and_goes_on_exponentially(
    tmp_path: Path, make_config: MakeConfig, volume: LabelledVolume
) -> None:
    config = make_config({"optimiser.ema_steps": 3})
    seen, mean = [], torch.empty(0)
    for steps in range(1, 6):
        now, average = weights_of(config, volume, tmp_path, steps)
        seen.append(now)
        mean = torch.stack(seen).mean(0) if steps <= 3 else mean * (2 / 3) + now / 3
        torch.testing.assert_close(average, mean, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(seen[-1], mean, rtol=1e-5, atol=1e-6)


def test_without_an_average_the_network_itself_is_used(
    tmp_path: Path, make_config: MakeConfig, volume: LabelledVolume
) -> None:
    now, average = weights_of(make_config({"optimiser.ema_steps": 0}), volume, tmp_path, 3)
    assert torch.equal(now, average)


def test_the_returned_average_is_ready_to_use(tmp_path: Path, make_config: MakeConfig, volume: LabelledVolume) -> None:
    state = train(make_config(), (volume,), tmp_path, device=CPU, stop_after=1)
    assert not state.average.training
    assert not any(p.requires_grad for p in state.average.parameters())


def test_the_learning_rate_rises_to_its_peak_and_falls_to_nothing() -> None:
    config = OptimiserConfig(steps=100, learning_rate=0.5, warmup=0.1)
    rates = [learning_rate(config, step) for step in range(100)]
    assert rates[:10] == pytest.approx([0.05 * (i + 1) for i in range(10)])
    assert rates[10] == max(rates) == 0.5
    assert rates[55] == pytest.approx(0.25)
    assert all(a > b for a, b in pairwise(rates[10:]))
    assert 0 < rates[99] < 0.001


def test_one_cycle_falls_in_a_straight_line() -> None:
    config = OptimiserConfig(steps=100, learning_rate=0.5, warmup=0.1, schedule="linear")
    rates = [learning_rate(config, step) for step in range(100)]
    assert rates[:10] == pytest.approx([0.05 * (i + 1) for i in range(10)])
    assert np.diff(rates[10:]) == pytest.approx([-0.5 / 90] * 89)
    assert rates[99] == pytest.approx(0.5 / 90)


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0.0), (1, 1.0), (10, 1.0), (3, 0.5)])
def test_every_schedule_stays_between_nothing_and_its_peak(steps: int, warmup: float) -> None:
    config = OptimiserConfig(steps=steps, learning_rate=0.5, warmup=warmup)
    assert all(0 < learning_rate(config, step) <= 0.5 for step in range(steps))


def test_a_loss_that_is_not_finite_ends_the_run_and_spares_the_checkpoint(
    tmp_path: Path, make_config: MakeConfig, volume: LabelledVolume
) -> None:
    train(make_config(), (volume,), tmp_path, device=CPU, stop_after=2)
    before = (tmp_path / CHECKPOINT).read_bytes()
    broken = LabelledVolume("broken", np.full_like(volume.raw, np.nan), volume.target, 0.0, 1.0)
    with pytest.raises(DivergenceError) as stopped:
        train(make_config(), (broken,), tmp_path, device=CPU, checkpoint_every=1)
    assert str(stopped.value) == (
        "loss is nan at step 2 with optimiser.learning_rate 0.004; it must be finite: lower the learning rate, and "
        "give another --out"
    )
    assert (tmp_path / CHECKPOINT).read_bytes() == before


def test_every_step_is_reported(tmp_path: Path, make_config: MakeConfig, volume: LabelledVolume) -> None:
    reports: list[StepReport] = []
    state = train(make_config(), (volume,), tmp_path, device=CPU, report=reports.append)
    assert [(r.step, r.steps) for r in reports] == [(i, 6) for i in range(1, 7)]
    assert [r.recent_loss for r in reports] == [fmean(state.losses[: i + 1]) for i in range(6)]
    assert all(r.pixels_per_second == pytest.approx(r.steps_per_second * 2 * 32 * 32) for r in reports)
    assert all(r.steps_per_second > 0 for r in reports)


@pytest.mark.parametrize("symmetry", ["plain", "paper", "d4"])
def test_the_loss_goes_down_on_synthetic_membranes(
    tmp_path: Path, make_config: MakeConfig, volume: LabelledVolume, symmetry: Symmetry
) -> None:
    config = make_config({"model.symmetry": symmetry, "optimiser.steps": 30, "optimiser.learning_rate": 0.02})
    losses = train(config, (volume,), tmp_path, device=CPU).losses
    assert fmean(losses[:5]) > fmean(losses[-5:]) + 0.1


def test_mixed_precision_keeps_weights_in_float32_and_the_loss_close(
    tmp_path: Path, make_config: MakeConfig, volume: LabelledVolume
) -> None:
    full, mixed = (
        train(make_config({"precision": p}), (volume,), tmp_path / p, device=CPU, stop_after=1)
        for p in ("float32", "bfloat16")
    )
    assert mixed.losses != full.losses
    assert mixed.losses == pytest.approx(full.losses, rel=0.02)
    assert {t.dtype for t in tensors(mixed.network.state_dict())} == {torch.float32, torch.int64}


def test_the_margin_and_the_weight_reach_the_loss(
    tmp_path: Path, make_config: MakeConfig, volume: LabelledVolume
) -> None:
    changes: tuple[dict[str, Any], ...] = ({}, {"sampling.margin": 8}, {"loss": {"boundary_weight": 4.0}})
    losses = {
        train(make_config(change), (volume,), tmp_path / str(i), device=CPU, stop_after=1).losses[0]
        for i, change in enumerate(changes)
    }
    assert len(losses) == 3


def test_a_fresh_average_is_a_copy_of_the_network(volume: LabelledVolume, make_config: MakeConfig) -> None:
    state = new_state(Segmentation(make_config(), (volume,)), CPU)
    pairs = zip(state.network.parameters(), state.average.parameters(), strict=True)
    assert all(torch.equal(a, b) and (a.data_ptr() != b.data_ptr() or not a.numel()) for a, b in pairs)
    assert state.network.training


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_step_of_every_shipped_configuration(tmp_path: Path, path: Path) -> None:
    config = load_config(path)
    side = config.sampling.crop
    raw, target = membranes((1, side, side), seed=0)
    volume = LabelledVolume("synthetic", (raw / 64 - 2).astype(np.float32), target > 0, 128.0, 64.0)
    before = new_state(Segmentation(config, (volume,)), CPU).network.state_dict()
    state = train(config, (volume,), tmp_path, device=CPU, stop_after=1)
    assert math.isfinite(state.losses[0])
    after = state.network.state_dict()
    still = [name for name in before if before[name].numel() and torch.equal(before[name], after[name])]
    assert not still, "every weight takes part"


def test_a_constant_schedule_ends_in_a_line_to_zero() -> None:
    config = OptimiserConfig(steps=100, learning_rate=0.5, warmup=0.1, schedule="constant", decay=0.2)
    rates = [learning_rate(config, step) for step in range(101)]
    assert rates[9:81] == [0.5] * 72
    assert rates[80:] == pytest.approx([0.5 * (20 - k) / 20 for k in range(21)])
    assert learning_rate(config.model_copy(update={"decay": 0.0}), 99) == 0.5


def test_what_was_trained_does_not_depend_on_how_long_it_goes_on(
    tmp_path: Path, make_config: MakeConfig, volume: LabelledVolume
) -> None:
    def until(steps: int) -> TrainState:
        constant = {"optimiser.schedule": "constant", "optimiser.decay": 0.25, "optimiser.warmup": 0.0}
        config = make_config({**constant, "optimiser.steps": steps})
        return train(config, (volume,), tmp_path / str(steps), device=CPU, stop_after=6)

    assert same(until(8), until(12))


def test_training_asked_to_stop_goes_on_to_the_same_bits(
    tmp_path: Path, make_config: MakeConfig, volume: LabelledVolume
) -> None:
    config = make_config()
    asked = iter([False, True])
    with pytest.raises(Stopped):
        train(config, (volume,), tmp_path / "stopped", device=CPU, stop=lambda: next(asked))
    resumed = train(config, (volume,), tmp_path / "stopped", device=CPU)
    assert same(resumed, train(config, (volume,), tmp_path / "straight", device=CPU))


@pytest.mark.parametrize("capable", [True, False])
def test_automatic_precision_is_that_of_the_machine(
    tmp_path: Path, make_config: MakeConfig, volume: LabelledVolume, monkeypatch: pytest.MonkeyPatch, capable: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": capable})
    automatic = train(make_config({"precision": "auto"}), (volume,), tmp_path / "auto", device=CPU)
    other = "bfloat16" if capable else "float32"
    assert same(automatic, train(make_config({"precision": other}), (volume,), tmp_path / other, device=CPU))
