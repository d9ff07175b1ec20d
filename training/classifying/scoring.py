"""How well a classifier does on images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from emboundary.training.images.sets import Images, ImageSet, Labels

_BATCH = 500


@dataclass(frozen=True)
class ClassScores:
    """Of a number of images.

    Attributes:
        error: percentage of images whose largest logit is not that of their class.
        loss: mean cross entropy, in nats.
    """

    error: float
    loss: float


@torch.no_grad()
def score_images(network: nn.Module, images: ImageSet, pixels: Images, labels: Labels) -> ClassScores:
    """Score some of the set's images, normalised as for training; ``network`` in evaluation mode."""
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    wrong, loss = 0, 0.0
    for start in range(0, len(labels), _BATCH):
        batch = torch.from_numpy(images.normalised(pixels[start : start + _BATCH])).to(device)
        truth = torch.from_numpy(labels[start : start + _BATCH]).to(device)
        logits = network(batch).float()
        wrong += int((logits.argmax(dim=1) != truth).sum())
        loss += float(F.cross_entropy(logits, truth, reduction="sum"))
    return ClassScores(100 * wrong / len(labels), loss / len(labels))
