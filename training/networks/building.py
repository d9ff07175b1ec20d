"""From a network's configuration to the network."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import nn

from emboundary.training.networks.all_cnn import AllCnnConfig
from emboundary.training.networks.densenet import DenseNetConfig
from emboundary.training.networks.pooling import PoolingCnnConfig
from emboundary.training.networks.resnet import ResNetConfig
from emboundary.training.networks.rotated_mnist import RotatedMnistConfig
from emboundary.training.networks.scattering import ScatteringConfig

NetworkConfig = Annotated[
    RotatedMnistConfig | AllCnnConfig | ResNetConfig | DenseNetConfig | PoolingCnnConfig | ScatteringConfig,
    Field(discriminator="kind"),
]


def build_network(config: NetworkConfig, channels: int, classes: int, size: int) -> nn.Module:
    """The network for images of ``channels`` x ``size`` x ``size`` pixels, with its first weights.

    Shapes: (N, channels, size, size) -> logits (N, classes).

    Raises:
        ValueError: names what of ``config`` or the images does not fit the other.
    """
    return config.build(channels, classes, size)
