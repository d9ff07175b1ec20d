"""Losses on boundary logits, computed in float32 whatever the logits' type."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from skimage.morphology import skeletonize
from torch import Tensor

from emboundary.training.config import LossConfig


def total_loss(
    logits: list[Tensor], target: Tensor, config: LossConfig, *, margin: int, lines: Tensor | None = None
) -> Tensor:
    """The loss of the logit and, weighted by ``config.deep``, the mean loss of the auxiliary ones behind it.

    Args:
        logits: (N, 1, H, W) each, the one that counts first.
        target: of the same shape, 1 = boundary, 0 = none; between them where it is another network's probability.
        config: what is added to what.
        margin: outer pixels left out on each side, where the network saw zero padding.
        lines: of the same shape, ``centre_lines`` of the target; needed where ``config.skeleton`` is not 0.
    """
    inner = None if lines is None else _inner(lines, margin)
    first, *auxiliary = (
        _one_loss(_inner(logit, margin).float(), _inner(target, margin), config, inner) for logit in logits
    )
    return first + config.deep * torch.stack(auxiliary).mean() if auxiliary else first


def _one_loss(logit: Tensor, target: Tensor, config: LossConfig, lines: Tensor | None) -> Tensor:
    loss = cross_entropy(logit, target, boundary_weight=config.boundary_weight)
    if config.dice:
        loss = loss + config.dice * dice_loss(logit, target)
    if config.skeleton and lines is not None:
        loss = loss + config.skeleton * skeleton_loss(logit, lines)
    return loss


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


def skeleton_loss(logit: Tensor, lines: Tensor) -> Tensor:
    """``1 - sum p l / sum l`` over the whole batch, l = 1 on the boundaries' centre lines: their soft recall.

    A boundary counts by its length, not by its area, so that a hole of a few pixels in a thin one, through which two
    neurons would merge, costs as much as one in a thick one.

    Source: Kirchhoff et al. 2024, Skeleton Recall Loss for connectivity conserving and resource efficient segmentation
    of thin tubular structures, section 3.
    """
    return 1 - (torch.sigmoid(logit) * lines).sum() / lines.sum().clamp_min(1.0)


def centre_lines(target: NDArray[np.float32]) -> NDArray[np.float32]:
    """The centre lines, three pixels wide, of what is boundary (at least one half) in targets (N, 1, H, W); 1 or 0."""
    thin = np.stack([skeletonize(plane >= 0.5) for plane in target[:, 0]])[:, None]
    return F.max_pool2d(torch.from_numpy(thin.astype(np.float32)), 3, stride=1, padding=1).numpy()
