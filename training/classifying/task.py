"""The task of a classifier: which of the classes an image shows."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from emboundary.training.classifying.config import ClassifierConfig
from emboundary.training.images.sampling import ImageSampler
from emboundary.training.images.sets import ImageSet
from emboundary.training.learning.task import Batch, Learner
from emboundary.training.networks.building import build_network


class Classifier(Learner):
    """A network that gives one logit per class.

    Shapes: (N, C, H, W) -> (N, classes).
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x)
        return logits


class Classification:
    """Cross entropy on shuffled batches of labelled images."""

    def __init__(self, config: ClassifierConfig, images: ImageSet) -> None:
        self.config, self.images = config, images
        data = config.data
        self._sampler = ImageSampler(images, data.batch, config.seed, data.shift, data.mirror)

    @property
    def pixels(self) -> int:
        return self.config.data.batch * self.images.size**2

    def learner(self) -> Learner:
        images = self.images
        return Classifier(build_network(self.config.network, images.channels, len(images.classes), images.size))

    def batch(self, step: int) -> Batch:
        drawn = self._sampler.batch(step)
        return drawn.images, drawn.labels

    def loss(self, learner: Learner, outputs: Tensor, *targets: Tensor) -> Tensor:  # noqa: ARG002
        (labels,) = targets
        return F.cross_entropy(outputs.float(), labels)
