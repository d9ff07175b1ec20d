"""The training loop."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor, nn

from emboundary.model.inception import Segmenter
from emboundary.service.errors import EmboundaryError
from emboundary.training.checkpoint import TrainState, load_checkpoint, save_checkpoint
from emboundary.training.config import OptimiserConfig, TrainConfig
from emboundary.training.data import CropSampler, LabelledVolume
from emboundary.training.losses import boundary_loss

CHECKPOINT = "checkpoint.pt"


class DivergenceError(EmboundaryError):
    """A training whose loss is no longer a finite number."""


@dataclass(frozen=True)
class StepReport:
    """What the progress display is told after each step.

    Attributes:
        step, steps: steps done, of how many.
        recent_loss: mean of the last 100 steps.
        steps_per_second: since this process began.
    """

    step: int
    steps: int
    recent_loss: float
    steps_per_second: float


def new_state(config: TrainConfig, device: torch.device) -> TrainState:
    """A fresh network, its average and its optimiser; the seed alone determines the weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = Segmenter(config.model.spec())
    network = network.to(device).train()
    average = copy.deepcopy(network).requires_grad_(False)
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=config.optimiser.learning_rate, weight_decay=config.optimiser.weight_decay
    )
    return TrainState(network, average, optimiser, step=0, losses=[])


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
    identity = config.model_dump_json()
    if checkpoint.exists():
        load_checkpoint(checkpoint, state, identity)
    sampler = CropSampler(volumes, config.sampling, config.augment, config.seed)
    last = config.optimiser.steps if stop_after is None else min(stop_after, config.optimiser.steps)
    first, started = state.step, time.perf_counter()
    while state.step < last:
        batch = sampler.batch(state.step)
        image, target = (torch.from_numpy(a).to(device) for a in (batch.image, batch.target))
        loss = _step(config, state, image, target)
        if not math.isfinite(loss):
            raise DivergenceError(
                f"loss is {loss} at step {state.step} with optimiser.learning_rate {config.optimiser.learning_rate:g}; "
                "it must be finite: lower the learning rate, and give another --out"
            )
        state.losses.append(loss)
        state.step += 1
        speed = (state.step - first) / (time.perf_counter() - started)
        report(StepReport(state.step, config.optimiser.steps, fmean(state.losses[-100:]), speed))
        if state.step % checkpoint_every == 0 or state.step == last:
            save_checkpoint(checkpoint, state, identity)
    state.average.eval()
    return state


def _step(config: TrainConfig, state: TrainState, image: Tensor, target: Tensor) -> float:
    for group in state.optimiser.param_groups:
        group["lr"] = learning_rate(config.optimiser, state.step)
    mixed = config.precision == "bfloat16"
    with torch.autocast(image.device.type, torch.bfloat16, enabled=mixed):
        logit = state.network(image)
    loss = boundary_loss(logit, target, margin=config.sampling.margin, boundary_weight=config.loss_boundary_weight)
    state.optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(state.network.parameters(), config.optimiser.clip)
    state.optimiser.step()
    _average(state, config.optimiser.ema_steps)
    return float(loss.detach())


def learning_rate(config: OptimiserConfig, step: int) -> float:
    """Linear warm-up to the peak, then half a cosine that reaches zero behind the last step."""
    warm = max(1, round(config.warmup * config.steps))
    if step < warm:
        return config.learning_rate * (step + 1) / warm
    progress = (step - warm) / max(1, config.steps - warm)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


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
