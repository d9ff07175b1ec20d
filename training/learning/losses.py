"""Losses on boundary logits, computed in float32 whatever the logits' type."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from emboundary.training.config import LossConfig


def total_loss(logits: list[Tensor], target: Tensor, config: LossConfig, *, margin: int) -> Tensor:
    """The loss of the logit and, weighted by ``config.deep``, the mean loss of the auxiliary ones behind it.

    Args:
        logits: (N, 1, H, W) each, the one that counts first.
        target: of the same shape, 1 = boundary, else 0.
        config: what is added to what.
        margin: outer pixels left out on each side, where the network saw zero padding.
    """
    first, *auxiliary = (_one_loss(_inner(logit, margin).float(), _inner(target, margin), config) for logit in logits)
    return first + config.deep * torch.stack(auxiliary).mean() if auxiliary else first


def _one_loss(logit: Tensor, target: Tensor, config: LossConfig) -> Tensor:
    loss = cross_entropy(logit, target, boundary_weight=config.boundary_weight)
    return loss + config.dice * dice_loss(logit, target) if config.dice else loss


def _inner(plane: Tensor, margin: int) -> Tensor:
    height, width = plane.shape[-2:]
    return plane[..., margin : height - margin, margin : width - margin]


def cross_entropy(logit: Tensor, target: Tensor, *, boundary_weight: float) -> Tensor:
    """``mean_p w(p) [log(1 + exp(logit)) - target * logit]``, w = ``boundary_weight`` on boundary pixels, else 1."""
    weight = torch.as_tensor(boundary_weight, dtype=torch.float32, device=logit.device)
    return F.binary_cross_entropy_with_logits(logit, target, pos_weight=weight)


def dice_loss(logit: Tensor, target: Tensor) -> Tensor:
    """``1 - 2 sum p t / (sum p^2 + sum t^2)`` over the whole batch.

    Source: Milletari, Navab and Ahmadi 2016 (V-Net), section 3.
    """
    probability = torch.sigmoid(logit)
    overlap = 2 * (probability * target).sum()
    return 1 - overlap / (probability.square().sum() + target.square().sum()).clamp_min(1e-6)
