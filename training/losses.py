"""Losses on boundary logits."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def boundary_loss(logit: Tensor, target: Tensor, *, margin: int, boundary_weight: float) -> Tensor:
    """Mean binary cross entropy of the inner pixels of each crop.

    ``mean_p w(p) [log(1 + exp(logit)) - target * logit]``, w = ``boundary_weight`` on boundary pixels, else 1;
    computed in float32 whatever the logits' type.

    Args:
        logit: (N, 1, H, W).
        target: of the same shape, 1 = boundary, else 0.
        margin: outer pixels left out on each side, where the network saw zero padding.
        boundary_weight: 1 for the unweighted mean.
    """
    height, width = logit.shape[-2:]
    inner = (..., slice(margin, height - margin), slice(margin, width - margin))
    weight = torch.as_tensor(boundary_weight, dtype=torch.float32, device=logit.device)
    return F.binary_cross_entropy_with_logits(logit[inner].float(), target[inner], pos_weight=weight)
