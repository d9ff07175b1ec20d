"""A small network for comparing regimes of pooling.

Source: Pooling and invariance review, section 2: the regimes (2.2 to 2.5), maxout (2.6), and the end, one map for every
class and global pooling in place of layers that see all pixels (2.7).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator
from torch import nn

from emboundary.model.group_conv import Fields, GroupBatchNorm2d, GroupConv2d
from emboundary.model.groups import Group, find_group
from emboundary.model.pooling import GlobalMax, Kind, MaxoutChannels, PoolSpec, Regime, make_pool
from emboundary.training.networks.parts import GroupName, OrbitMaximum, OrbitMean, image
from emboundary.training.strict import Fraction, PositiveInt, Strict


class PoolConfig(Strict):
    """How maps are pooled; see ``emboundary.model.pooling.PoolSpec`` for what each means, and for its rules."""

    kind: Kind = "max"
    kernel: int = 2
    stride: int = 2
    padding: int = 0
    p: float = 4.0
    sigma: float | None = None
    regimes: Annotated[tuple[Regime, ...], Field(strict=False)] = ("max", "average")

    def spec(self) -> PoolSpec:
        """The frozen description that the layer is built from."""
        return PoolSpec(**self.model_dump())

    @model_validator(mode="after")
    def _is_a_pooling(self) -> PoolConfig:
        self.spec()
        return self


class PoolingCnnConfig(Strict):
    """Three 3x3 convolutions, a pooling behind each of the first two, a 1x1 convolution to one map for each class.

    Every 3x3 convolution has batch norm.  The maps of the classes are pooled over all pixels and the group, by the
    mean or the maximum, so that the logits are invariant where the poolings' windows divide the sides.

    Attributes:
        group: of the convolutions.
        filters: fields of the first layer; the others have twice as many.
        pool: behind the first convolution.
        second_pool: behind the second; None: as behind the first.
        activation: ReLU, or ``maxout`` over ``pieces`` maps that are convolved for each that is kept.
        end: how classes' maps are pooled.
        dropout: of fields in front of the last convolution.
    """

    kind: Literal["pooling-cnn"] = "pooling-cnn"
    group: GroupName = "C1"
    filters: PositiveInt = 16
    pool: PoolConfig = PoolConfig()
    second_pool: PoolConfig | None = None
    activation: Literal["relu", "maxout"] = "relu"
    pieces: Annotated[int, Field(ge=2)] = 2
    end: Literal["average", "max"] = "average"
    dropout: Fraction = 0.0

    def build(self, channels: int, classes: int, size: int) -> nn.Module:
        """The network.

        Raises:
            ValueError: a size of which a pooling leaves nothing, or fewer filters than ``heterogeneous`` has regimes.
        """
        group, inputs = find_group(self.group), image(channels)
        layers: list[nn.Module] = []
        for filters, pool in ((self.filters, self.pool), (2 * self.filters, self.second_pool or self.pool)):
            layers += self._layer(group, inputs, filters)
            pooling = make_pool(pool.spec(), Fields(regular=filters), group)
            layers.append(pooling)
            inputs = pooling.fields
            before, size = size, (size + 2 * pool.padding - pool.kernel) // pool.stride + 1
            if size < 1:
                raise ValueError(f"size is {before} where a pooling of {pool.kernel} pixels is; give larger images")
        layers += self._layer(group, inputs, 2 * self.filters)
        layers.append(nn.Dropout(self.dropout))
        layers.append(GroupConv2d(group, Fields(regular=2 * self.filters), classes, 1, bias=True))
        layers += [OrbitMean(group)] if self.end == "average" else [OrbitMaximum(group), GlobalMax()]
        return nn.Sequential(*layers)

    def _layer(self, group: Group, inputs: Fields, filters: int) -> list[nn.Module]:
        pieces = self.pieces if self.activation == "maxout" else 1
        conv = GroupConv2d(group, inputs, pieces * filters, 3)
        activation = MaxoutChannels(pieces) if self.activation == "maxout" else nn.ReLU()
        return [conv, GroupBatchNorm2d(group, pieces * filters), activation]
