"""The training loop: one for every task."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from emboundary.service.errors import EmboundaryError
from emboundary.training.crops.feeding import prefetched
from emboundary.training.learning.arithmetic import mixed
from emboundary.training.learning.checkpoint import load_checkpoint, save_checkpoint
from emboundary.training.learning.recipe import LearningConfig, learning_rate
from emboundary.training.learning.state import TrainState, new_state
from emboundary.training.learning.task import Task

CHECKPOINT = "checkpoint.pt"

# Threads that make batches: on a GPU enough to keep it fed; on a CPU one, since the network wants the cores.
_WORKERS = {"cpu": 1, "cuda": 8}


class Stopped(Exception):  # noqa: N818, no error: somebody asked for it
    """A training that was asked to stop; its checkpoint holds every step that was done."""


class DivergenceError(EmboundaryError):
    """A training whose loss is no longer a finite number."""


@dataclass(frozen=True)
class StepReport:
    """What the progress display is told after each step.

    Attributes:
        step, steps: steps done, of how many.
        recent_loss: mean of the last 100 steps.
        steps_per_second: since this process began.
        pixels_per_second: of batches, likewise: the throughput of the loop, its data included.
    """

    step: int
    steps: int
    recent_loss: float
    steps_per_second: float
    pixels_per_second: float


def learn(
    task: Task[LearningConfig],
    folder: Path,
    *,
    device: torch.device,
    checkpoint_every: int = 500,
    report: Callable[[StepReport], None] = lambda _: None,
    watch: Callable[[TrainState], None] = lambda _: None,
    stop_after: int | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> TrainState:
    """Train to the task's last step, resuming from ``folder/checkpoint.pt`` where there is one.

    Args:
        task: the network, its batches and its loss.
        folder: of the checkpoint; made if it is missing.
        device: where the network is.
        checkpoint_every: steps between checkpoints; the last step always writes one.
        report: called after every step.
        watch: called after every step, before its checkpoint: what it adds to ``state.notes`` is kept there.
        stop_after: leave, with a checkpoint, once this many steps are done; None: at the last.
        stop: asked after every step.

    Returns:
        The final state; ``state.average``, in evaluation mode, is the network to use.

    Raises:
        CheckpointError: the checkpoint is damaged or of another configuration.
        DivergenceError: the loss is no longer finite.
        OutputError: the checkpoint cannot be written.
        Stopped: ``stop`` said so.
    """
    config = task.config
    state = new_state(task, device)
    checkpoint = folder / CHECKPOINT
    if checkpoint.exists():
        load_checkpoint(checkpoint, state, config)
    outputs = _outputs(config, state)
    last = config.optimiser.steps if stop_after is None else min(stop_after, config.optimiser.steps)
    first, started = state.step, time.perf_counter()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for batch in prefetched(task.batch, first, last, workers=_WORKERS[device.type]):
            images, *targets = (torch.from_numpy(a).to(device, non_blocking=True) for a in batch)
            state.losses.append(_finite(_step(task, state, outputs, images, targets), state, config))
            state.step += 1
            speed = (state.step - first) / (time.perf_counter() - started)
            mean = fmean(state.losses[-100:])
            report(StepReport(state.step, config.optimiser.steps, mean, speed, speed * task.pixels))
            watch(state)
            stopping = stop()
            if state.step % checkpoint_every == 0 or state.step == last or stopping:
                save_checkpoint(checkpoint, state, config)
            if stopping and state.step < config.optimiser.steps:
                raise Stopped
    state.average.eval()
    return state


def _finite(loss: float, state: TrainState, config: LearningConfig) -> float:
    if not math.isfinite(loss):
        raise DivergenceError(
            f"loss is {loss} at step {state.step} with optimiser.learning_rate {config.optimiser.learning_rate:g}; "
            "it must be finite: lower the learning rate, and give another --out"
        )
    return loss


def _outputs(config: LearningConfig, state: TrainState) -> Callable[[Tensor], Any]:
    """The function that is differentiated: compiled, if that is asked for."""
    if config.channels_last:
        state.learner.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return torch.compile(state.learner) if config.compile else state.learner


def _step(
    task: Task[LearningConfig],
    state: TrainState,
    outputs: Callable[[Tensor], Any],
    images: Tensor,
    targets: list[Tensor],
) -> float:
    config = task.config
    for group in state.optimiser.param_groups:
        group["lr"] = learning_rate(config.optimiser, state.step)
    if config.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    # Dropout and stochastic pooling draw from this: a resumed run draws what an uninterrupted one would have.
    torch.manual_seed((config.seed << 32) + state.step)
    with torch.autocast(images.device.type, torch.bfloat16, enabled=mixed(config, images.device)):
        given = outputs(images)
    loss = task.loss(state.learner, given, *targets)
    if state.learner.penalty is not None:
        loss = loss + config.lipschitz * state.learner.penalty()
    state.optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(state.learner.parameters(), config.optimiser.clip)
    state.optimiser.step()
    _average(state, config.optimiser.ema_steps)
    return float(loss.detach())


@torch.no_grad()
def _average(state: TrainState, ema_steps: int) -> None:
    """Exponential moving average of weights and batch norm statistics; a plain mean over the first steps."""
    keep = min(state.step / (state.step + 1), 1 - 1 / ema_steps) if ema_steps else 0.0
    for mean, now in zip(_tensors(state.average), _tensors(state.network), strict=True):
        if mean.is_floating_point():
            mean.lerp_(now, 1 - keep)
        else:
            mean.copy_(now)


def _tensors(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]
