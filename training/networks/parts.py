"""What the networks have in common: names of groups in configurations, the unit of their layers, their ends."""

from __future__ import annotations

from typing import Annotated, Protocol

import torch
from pydantic import AfterValidator
from torch import Tensor, nn

from emboundary.model.group_conv import Fields, GroupBatchNorm2d, GroupConv2d, coset_max
from emboundary.model.groups import Group, find_group


def _known(name: str) -> str:
    return find_group(name).name


GroupName = Annotated[str, AfterValidator(_known)]


class Buildable(Protocol):
    """A network's configuration."""

    def build(self, channels: int, classes: int, size: int) -> nn.Module:
        """The network for images of ``channels`` x ``size`` x ``size``: (N, channels, y, x) -> logits (N, classes)."""


def image(channels: int) -> Fields:
    """The fields of an image: no element of a group permutes its channels."""
    return Fields(trivial=channels)


def unit(
    group: Group,
    inputs: Fields,
    outputs: int,
    kernel: int,
    *,
    stride: int = 1,
    padding: int | None = None,
    pool: bool = False,
) -> nn.Sequential:
    """Group convolution, batch norm shared by each orbit, the maximum of every orbit if ``pool``, ReLU."""
    conv = GroupConv2d(group, inputs, outputs, kernel, stride=stride, padding=padding)
    pooling = [OrbitMaximum(group)] if pool else []
    return nn.Sequential(conv, GroupBatchNorm2d(group, outputs), *pooling, nn.ReLU())


class OrbitMaximum(nn.Module):
    """The maximum of every orbit: (N, fields * |G|, y, x) -> (N, fields, y, x)."""

    def __init__(self, group: Group) -> None:
        super().__init__()
        self.order = group.order

    def forward(self, x: Tensor) -> Tensor:
        return coset_max(x, self.order)


class OrbitMean(nn.Module):
    """The mean of every orbit over its elements and all pixels: (N, fields * |G|, y, x) -> (N, fields)."""

    def __init__(self, group: Group) -> None:
        super().__init__()
        self.order = group.order

    def forward(self, x: Tensor) -> Tensor:
        return torch.unflatten(x, 1, (-1, self.order)).mean(dim=(2, 3, 4))
