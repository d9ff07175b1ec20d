"""What a segmenter is assembled from: units, Inception modules, reductions, deconvolutions, the invariant logit."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from emboundary.model.box_mean import box_mean
from emboundary.model.group_conv import CosetMeanConv2d, Fields, GroupBatchNorm2d, GroupConv2d, GroupDeconv2d, coset_max
from emboundary.model.groups import C1, Group
from emboundary.model.pooling import Pooling, PoolSpec, make_pool
from emboundary.model.symmetric import SymmetricConv2d
from emboundary.model.symmetric_deconv import SymmetricDeconv2d


class Unit(nn.Module):
    """Convolution, batch norm shared by each orbit, optional maxout over the orbit, ReLU."""

    def __init__(self, conv: nn.Module, norm: nn.Module, *, maxout: int = 1) -> None:
        super().__init__()
        self.conv, self.norm, self.maxout = conv, norm, maxout

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(coset_max(self.norm(self.conv(x)), self.maxout))


@dataclass(frozen=True)
class Layers:
    """What the layers of a network are made of.

    Attributes:
        group: of all convolutions; over C1 they are ordinary ones.
        level: of the symmetry of ordinary kernels, 1 to 4; 0: their entries are free, or tied by the group.
        pooling: what halves the resolution.

    Raises:
        ValueError: a level above 0 with a group other than C1.
    """

    group: Group
    level: int = 0
    pooling: PoolSpec = field(default_factory=PoolSpec)

    def __post_init__(self) -> None:
        if self.level and self.group != C1:
            raise ValueError(
                f"level is {self.level} over group {self.group.name}; symmetric kernels are those of ordinary "
                "channels: give group C1, or level 0"
            )

    def fields(self, width: int) -> int:
        """Regular fields of a map that is ``width`` channels wide."""
        return width // self.group.order

    def pool(self, inputs: Fields) -> Pooling:
        """The pooling of a map."""
        return make_pool(self.pooling, inputs, self.group)

    def unit(self, inputs: Fields, outputs: int, kernel: int, *, stride: int = 1, maxout: bool = False) -> Unit:
        """A convolution with what follows it; a strided one has kernel 4 and padding 1."""
        padding = 1 if stride > 1 else None
        conv: nn.Module
        if self.level:
            channels = inputs.channels(self.group)
            conv = SymmetricConv2d(channels, outputs, kernel, self.level, stride=stride, padding=padding)
        else:
            conv = GroupConv2d(self.group, inputs, outputs, kernel, stride=stride, padding=padding)
        return Unit(conv, GroupBatchNorm2d(self.group, outputs), maxout=self.group.order if maxout else 1)

    def enlarging(self, inputs: Fields, outputs: int, stride: int) -> Unit:
        """A transposed convolution with what follows it."""
        conv: nn.Module
        if self.level:
            conv = SymmetricDeconv2d(inputs.channels(self.group), outputs, stride, self.level)
        else:
            conv = GroupDeconv2d(self.group, inputs, outputs, stride)
        return Unit(conv, GroupBatchNorm2d(self.group, outputs))


class Inception(nn.Module):
    """Four branches, concatenated: 1x1; 1x1, 3x3; 1x1, 3x3, 3x3; 3x3 average pooling, 1x1.

    ``deep=False`` leaves the two-convolution branch out (Inception C, where it would double the halo).
    """

    def __init__(self, layers: Layers, inputs: Fields, width: int, *, deep: bool = True) -> None:
        super().__init__()
        fields = layers.fields(width)
        inner = Fields(regular=fields)
        self.branch_1x1 = layers.unit(inputs, fields, 1)
        self.branch_3x3 = nn.Sequential(layers.unit(inputs, fields, 1), layers.unit(inner, fields, 3))
        self.branch_5x5: nn.Sequential | None = None
        if deep:
            self.branch_5x5 = nn.Sequential(
                layers.unit(inputs, fields, 1), layers.unit(inner, fields, 3), layers.unit(inner, fields, 3)
            )
        self.branch_pool = layers.unit(inputs, fields, 1)
        self.fields = Fields(regular=fields * (4 if deep else 3))

    def forward(self, x: Tensor) -> Tensor:
        branches = [self.branch_1x1(x), self.branch_3x3(x), self.branch_pool(box_mean(x, training=self.training))]
        if self.branch_5x5 is not None:
            branches.append(self.branch_5x5(x))
        return torch.cat(branches, dim=1)


class Reduction(nn.Module):
    """Halve the resolution: pooling beside 1x1, 4x4 stride 2; concatenated."""

    def __init__(self, layers: Layers, inputs: Fields, width: int) -> None:
        super().__init__()
        fields = layers.fields(width)
        self.pool = layers.pool(inputs)
        self.strided = nn.Sequential(
            layers.unit(inputs, fields, 1), layers.unit(Fields(regular=fields), fields, 4, stride=2)
        )
        self.fields = Fields(regular=self.pool.fields.regular + fields)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.pool(x), self.strided(x)], dim=1)


class Upsample(nn.Module):
    """Bring a module's output to full resolution: 1x1 to the decoder's width, then one deconvolution."""

    def __init__(self, layers: Layers, inputs: Fields, width: int, stride: int) -> None:
        super().__init__()
        fields = layers.fields(width)
        self.point = layers.unit(inputs, 2 * fields, 1)
        self.deconv = layers.enlarging(Fields(regular=2 * fields), fields, stride)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.deconv(self.point(x))
        return out


class InvariantLogit(nn.Module):
    """One logit from regular fields: a linear map of their maxima over the group and, if asked for, their means.

    Shapes: (N, fields * |G|, H, W) -> (N, 1, H, W).
    """

    def __init__(self, group: Group, fields: int, *, mean: bool) -> None:
        super().__init__()
        self.order = group.order
        self.of_max = nn.Conv2d(fields, 1, 1)
        nn.init.zeros_(self.of_max.bias)  # type: ignore[arg-type]
        self.of_mean: nn.Module | None = CosetMeanConv2d(group, fields, 1) if mean else None

    def forward(self, x: Tensor) -> Tensor:
        logit: Tensor = self.of_max(coset_max(x, self.order))
        return logit if self.of_mean is None else logit + self.of_mean(x)
