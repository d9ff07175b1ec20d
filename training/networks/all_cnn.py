"""All-CNN-C, planar or over a group: convolutions and ReLU, strides in place of pooling.

Source: Cohen and Welling 2016, section 8.2 and table 2; the planar network: Springenberg et al. 2015.
"""

from __future__ import annotations

from typing import Literal

from torch import nn

from emboundary.model.group_conv import Fields, GroupBatchNorm2d, GroupConv2d
from emboundary.model.groups import find_group
from emboundary.training.networks.parts import GroupName, OrbitMean, image
from emboundary.training.strict import Fraction, PositiveInt, Strict


class AllCnnConfig(Strict):
    """Nine convolutions with ReLU behind each, the last too, then the mean over pixels and the group.

    Fields f, f, f/2, 2f, 2f, 2f/2, 2f (3x3), 2f, classes (1x1), where /2 is stride 2.  The paper's three networks are
    ``filters`` 96 over C1 (1.37 M parameters), 48 over C4 (1.37 M) and 32 over D4 (1.22 M).

    The logits are invariant where every stride's grid is centred, that is for sides 4 k + 1; a 3x3 kernel with stride
    2 on an even side, as published for 32 x 32, starts at one border and not at the other, so there they are not.

    Attributes:
        group: of the convolutions.
        filters: fields of the first three layers; the next five have twice as many.
        batch_norm: behind every convolution, in place of its bias.  The paper's text names none; the authors'
            published experiments have it.  Without it large steps can end with the last ReLU silent for every class,
            and nothing left to learn from: Adam's rate must be 0.001 or so.
        dropout_image: share of the image's values that training drops.
        dropout: the same behind each strided layer.
    """

    kind: Literal["all-cnn-c"] = "all-cnn-c"
    group: GroupName = "C1"
    filters: PositiveInt = 96
    batch_norm: bool = True
    dropout_image: Fraction = 0.2
    dropout: Fraction = 0.5

    def build(self, channels: int, classes: int, size: int) -> nn.Module:
        """The network.

        Raises:
            ValueError: a size of less than 4 pixels.
        """
        if size < 4:
            raise ValueError(f"size is {size}; all-cnn-c halves it twice and needs at least 4 pixels")
        group, first, second = find_group(self.group), self.filters, 2 * self.filters
        plan = [(first, 3, 1), (first, 3, 1), (first, 3, 2), (second, 3, 1), (second, 3, 1), (second, 3, 2)]
        plan += [(second, 3, 1), (second, 1, 1), (classes, 1, 1)]
        layers: list[nn.Module] = [nn.Dropout(self.dropout_image)]
        inputs = image(channels)
        for outputs, kernel, stride in plan:
            layers.append(GroupConv2d(group, inputs, outputs, kernel, stride=stride, bias=not self.batch_norm))
            if self.batch_norm:
                layers.append(GroupBatchNorm2d(group, outputs))
            layers.append(nn.ReLU())
            if stride == 2:
                layers.append(nn.Dropout(self.dropout))
            inputs = Fields(regular=outputs)
        return nn.Sequential(*layers, OrbitMean(group))
