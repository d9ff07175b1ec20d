"""Residual networks, planar or over a group.

Source: Cohen and Welling 2016, section 8.2 and table 2; the blocks: He et al. 2016, "Identity mappings in deep residual
networks".  The paper cites them beside the older kind; the authors' published experiments have these.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from emboundary.model.group_conv import Fields, GroupBatchNorm2d, GroupConv2d
from emboundary.model.groups import Group, find_group
from emboundary.training.networks.parts import GroupName, OrbitMean, image
from emboundary.training.strict import PositiveInt, Strict


class ResNetConfig(Strict):
    """A 3x3 convolution, three stages of residual blocks, the mean over all pixels, a linear classifier.

    6 ``blocks`` + 2 layers.  The first block of stages 2 and 3 halves the sides by stride 2, and its shortcut is a 1x1
    convolution with that stride; other shortcuts are the identity.  The paper's networks:

        ResNet44   C1   7 blocks   32, 64, 128    2.64 M parameters
        ResNet44   D4   7 blocks   11, 23, 45     2.62 M
        ResNet26   C1   4 blocks   71, 142, 284   7.24 M
        ResNet26   D4   4 blocks   25, 50, 100    7.17 M

    The paper gives (71, 142, 248) and (50, 100, 150) for the last two, which have 6.0 M and 19.4 M parameters and so
    not its 7.2 M; the numbers here are those that the authors publish with their experiments.

    The logits are invariant where every stride's grid is centred, that is for sides 4 k + 1; on even sides, as
    published for 32 x 32, they are not.

    Attributes:
        group: of the convolutions.
        blocks: of each stage, two layers each.
        filters: fields of the three stages.
        classifier: ``invariant``, a linear map of every field's mean over the group; or ``orbits``, one of all its
            elements as the authors' experiments have it, which ends the invariance.
    """

    kind: Literal["resnet"] = "resnet"
    group: GroupName = "C1"
    blocks: PositiveInt = 7
    filters: Annotated[tuple[PositiveInt, PositiveInt, PositiveInt], Field(strict=False)] = (32, 64, 128)
    classifier: Literal["invariant", "orbits"] = "invariant"

    def build(self, channels: int, classes: int, size: int) -> nn.Module:
        """The network.

        Raises:
            ValueError: a size of less than 4 pixels.
        """
        if size < 4:
            raise ValueError(f"size is {size}; resnet halves it twice and needs at least 4 pixels")
        group = find_group(self.group)
        layers: list[nn.Module] = [GroupConv2d(group, image(channels), self.filters[0], 3)]
        before = self.filters[0]
        for stage, filters in enumerate(self.filters):
            for block in range(self.blocks):
                stride = 2 if stage and not block else 1
                layers.append(Residual(group, before, filters, stride))
                before = filters
        layers += [GroupBatchNorm2d(group, before), nn.ReLU()]
        if self.classifier == "invariant":
            return nn.Sequential(*layers, OrbitMean(group), nn.Linear(before, classes))
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before * group.order, classes))


class Residual(nn.Module):
    """``x + conv(relu(norm(conv(relu(norm(x))))))``, the shortcut a strided 1x1 convolution where the maps change.

    Shapes: (N, inputs * |G|, y, x) -> (N, outputs * |G|, y', x').
    """

    def __init__(self, group: Group, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        before, after = Fields(regular=inputs), Fields(regular=outputs)
        self.branch = nn.Sequential(
            GroupBatchNorm2d(group, inputs),
            nn.ReLU(),
            GroupConv2d(group, before, outputs, 3, stride=stride),
            GroupBatchNorm2d(group, outputs),
            nn.ReLU(),
            GroupConv2d(group, after, outputs, 3),
        )
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else GroupConv2d(group, before, outputs, 1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        joined: Tensor = self.shortcut(x) + self.branch(x)
        return joined
