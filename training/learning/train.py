"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor, nn

from emboundary.service.errors import EmboundaryError
from emboundary.training.config import TrainConfig
from emboundary.training.crops.data import CropSampler, LabelledVolume
from emboundary.training.crops.feeding import prefetched
from emboundary.training.learning.checkpoint import load_checkpoint, save_checkpoint
from emboundary.training.learning.losses import total_loss
from emboundary.training.learning.recipe import OptimiserConfig
from emboundary.training.learning.state import TrainState, new_state

CHECKPOINT = "checkpoint.pt"

# Threads that draw crops: on a GPU enough to keep it fed; on a CPU one, since the network wants the cores.
_WORKERS = {"cpu": 1, "cuda": 8}


class DivergenceError(EmboundaryError):
    """A training whose loss is no longer a finite number."""


@dataclass(frozen=True)
class StepReport:
    """What the progress display is told after each step.

    Attributes:
        step, steps: steps done, of how many.
        recent_loss: mean of the last 100 steps.
        steps_per_second: since this process began.
        pixels_per_second: of crops, likewise: the throughput of the loop, its data included.
    """

    step: int
    steps: int
    recent_loss: float
    steps_per_second: float
    pixels_per_second: float


def train(
    config: TrainConfig,
    volumes: tuple[LabelledVolume, ...],
    folder: Path,
    *,
    device: torch.device,
    checkpoint_every: int = 500,
    report: Callable[[StepReport], None] = lambda _: None,
    stop_after: int | None = None,
) -> TrainState:
    """Train to ``config.optimiser.steps``, resuming from ``folder/checkpoint.pt`` where there is one.

    Args:
        config: the network and how it learns.
        volumes: what it learns from, as ``load_volume`` gives it.
        folder: of the checkpoint; made if it is missing.
        device: where the network is.
        checkpoint_every: steps between checkpoints; the last step always writes one.
        report: called after every step.
        stop_after: leave, with a checkpoint, once this many steps are done; None: at the last.

    Returns:
        The final state; ``state.average``, in evaluation mode, is the network to use.

    Raises:
        CheckpointError: the checkpoint is damaged or of another configuration.
        DivergenceError: the loss is no longer finite.
        OutputError: the checkpoint cannot be written.
    """
    state = new_state(config, device)
    checkpoint = folder / CHECKPOINT
    if checkpoint.exists():
        load_checkpoint(checkpoint, state, config)
    sampler = CropSampler(volumes, config.sampling, config.augment, config.seed, config.model.context)
    logits = _logits(config, state)
    last = config.optimiser.steps if stop_after is None else min(stop_after, config.optimiser.steps)
    first, started = state.step, time.perf_counter()
    for batch in prefetched(sampler.batch, first, last, workers=_WORKERS[device.type]):
        image, target = (torch.from_numpy(a).to(device, non_blocking=True) for a in (batch.image, batch.target))
        loss = _step(config, state, logits, image, target)
        if not math.isfinite(loss):
            raise DivergenceError(
                f"loss is {loss} at step {state.step} with optimiser.learning_rate {config.optimiser.learning_rate:g}; "
                "it must be finite: lower the learning rate, and give another --out"
            )
        state.losses.append(loss)
        state.step += 1
        speed = (state.step - first) / (time.perf_counter() - started)
        pixels = speed * config.sampling.batch * config.sampling.crop**2
        report(StepReport(state.step, config.optimiser.steps, fmean(state.losses[-100:]), speed, pixels))
        if state.step % checkpoint_every == 0 or state.step == last:
            save_checkpoint(checkpoint, state, config)
    state.average.eval()
    return state


def _logits(config: TrainConfig, state: TrainState) -> Callable[[Tensor], list[Tensor]]:
    """The function that is differentiated: compiled, if that is asked for."""
    if config.channels_last:
        state.supervised.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return torch.compile(state.supervised) if config.compile else state.supervised


def _step(
    config: TrainConfig, state: TrainState, logits: Callable[[Tensor], list[Tensor]], image: Tensor, target: Tensor
) -> float:
    for group in state.optimiser.param_groups:
        group["lr"] = learning_rate(config.optimiser, state.step)
    if config.channels_last:
        image = image.contiguous(memory_format=torch.channels_last)
    with torch.autocast(image.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
        given = logits(image)
    loss = total_loss(given, target, config.loss, margin=config.sampling.margin)
    state.optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(state.supervised.parameters(), config.optimiser.clip)
    state.optimiser.step()
    _average(state, config.optimiser.ema_steps)
    return float(loss.detach())


def learning_rate(config: OptimiserConfig, step: int) -> float:
    """Linear warm-up to the peak, then half a cosine, or a straight line, that reaches zero behind the last step."""
    warm = max(1, round(config.warmup * config.steps))
    if step < warm:
        return config.learning_rate * (step + 1) / warm
    progress = (step - warm) / max(1, config.steps - warm)
    left = 0.5 * (1 + math.cos(math.pi * progress)) if config.schedule == "cosine" else 1 - progress
    return config.learning_rate * left


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
