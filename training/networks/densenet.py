"""The small DenseNet of symmetric kernels.

Source: Symmetric kernels paper, section 5, tables 3 and 4.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from emboundary.model.groups import C1
from emboundary.model.symmetric import SymmetricConv2d
from emboundary.training.networks.parts import OrbitMean
from emboundary.training.strict import PositiveInt, Strict

_BLOCKS = 4


class DenseNetConfig(Strict):
    """Four dense blocks of one 3x3 convolution with ReLU, 2x2 average pooling between, global average, linear map.

    Kernels have the symmetry of ``level``; the logits are then invariant under the group of that level, exactly.

    The paper's table 3 gives a growth of 30: 5,760 kernels.  Its table 4 of parameters does not follow from that:
    between levels 1, 2, 3 and 4 the counts differ by 10,080 for each number that a kernel has less, so that there are
    10,080 kernels, which is what a growth of 40 gives.  With 160 biases and a linear map of 163 features to 10 classes
    that makes 62,280, 42,120, 32,040 and 21,960 parameters, the published counts, and 92,520 on level 0, published as
    95,520.

    Attributes:
        level: of symmetry, 0 to 4; see ``emboundary.model.symmetric``.
        growth: maps that each block adds: 40 for the published parameters, 30 for the published table 3.
    """

    kind: Literal["densenet"] = "densenet"
    level: Annotated[int, Field(ge=0, le=4)] = 0
    growth: PositiveInt = 40

    def build(self, channels: int, classes: int, size: int) -> nn.Module:
        """The network.

        Raises:
            ValueError: a size that cannot be halved three times.
        """
        if size % 2 ** (_BLOCKS - 1):
            raise ValueError(f"size is {size}; densenet halves it three times: give a multiple of 8")
        layers: list[nn.Module] = []
        for block in range(_BLOCKS):
            if block:
                layers.append(nn.AvgPool2d(2))
            layers.append(Dense(SymmetricConv2d(channels, self.growth, 3, self.level, bias=True)))
            channels += self.growth
        return nn.Sequential(*layers, OrbitMean(C1), nn.Linear(channels, classes))


class Dense(nn.Module):
    """What comes in, and beside it what a convolution with ReLU makes of it."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, torch.relu(self.conv(x))], dim=1)
