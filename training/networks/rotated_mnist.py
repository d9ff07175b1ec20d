"""The three networks for rotated MNIST.

Source: Cohen and Welling 2016, section 8.1; what the text leaves open is as in the authors' published experiments: no
dropout behind layer 2 (which is pooled), and none in either p4 network.
"""

from __future__ import annotations

from typing import Literal

from torch import nn

from emboundary.model.group_conv import Fields, GroupConv2d
from emboundary.model.groups import find_group
from emboundary.training.networks.parts import GroupName, OrbitMaximum, image, unit
from emboundary.training.strict import Fraction, PositiveInt, Strict


class RotatedMnistConfig(Strict):
    """Seven 3x3 convolutions without padding, 2x2 max pooling behind the second, the seventh as large as what is left.

    Sides of a 28 x 28 image: 28, 26, 24, pooled 12, 10, 8, 6, 4, and a 4x4 kernel at the end.  Every layer but the
    last has batch norm and ReLU.  The maximum over the group makes the logits invariant under it, exactly, since no
    layer's grid is off the image's centre: Z2CNN is over ``C1`` with 20 filters and dropout 0.3; P4CNN over ``C4``
    with 10 filters; P4CNNRotationPooling over ``C4`` with 20 filters and ``pool`` ``every``.

    Attributes:
        group: of the convolutions: C1 (planar), C4 (p4), D4 (p4m), or any other that is known.
        filters: fields of every layer.
        pool: where the maximum over the group is taken: behind the ``last`` layer, or behind ``every`` one, so that
            each convolution is a lifting one.
        dropout: behind layers 1, 3, 4, 5 and 6.
    """

    kind: Literal["rotated-mnist-cnn"] = "rotated-mnist-cnn"
    group: GroupName = "C4"
    filters: PositiveInt = 10
    pool: Literal["last", "every"] = "last"
    dropout: Fraction = 0.0

    def build(self, channels: int, classes: int, size: int) -> nn.Module:
        """The network.

        Raises:
            ValueError: a size whose seven layers leave nothing, or whose pooling would leave a column out.
        """
        if size < 22 or size % 2:
            raise ValueError(
                f"size is {size}; rotated-mnist-cnn needs an even side of at least 22 pixels, 28 is that of MNIST"
            )
        group, every = find_group(self.group), self.pool == "every"
        inner = Fields(trivial=self.filters) if every else Fields(regular=self.filters)
        layers: list[nn.Module] = []
        for number in range(1, 7):
            inputs = image(channels) if number == 1 else inner
            layers.append(unit(group, inputs, self.filters, 3, padding=0, pool=every))
            if number == 2:
                layers.append(nn.MaxPool2d(2))
            elif self.dropout:
                layers.append(nn.Dropout(self.dropout))
        left = (size - 4) // 2 - 8
        top = GroupConv2d(group, inner, classes, left, padding=0, bias=True)
        return nn.Sequential(*layers, top, OrbitMaximum(group), nn.Flatten())
