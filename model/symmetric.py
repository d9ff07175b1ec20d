"""Convolution with symmetric kernels: entries of a kernel that a symmetry exchanges are one parameter.

    level   classes of a 3 x 3 kernel           commutes with
    0       a b c / d e f / g h i     9         translations only
    1       a b a / d e d / g h g     6         D1: the mirror in x
    2       a b a / d e d / a b a     4         D2: both mirrors, and so the rotation by 180 degrees
    3       a b a / b e b / a b a     3         D4: mirrors and rotations by 90 degrees
    4       a a a / a e a / a a a     2         D4, and other rotations approximately

Levels 1 to 3 make the classes of any kernel, odd or even, the orbits of its entries under the group.  Level 4 is
meant for rotations by any angle: a kernel of the radius alone.  Its classes are rings one pixel wide, the distance
from the centre rounded to a whole number; for 3 x 3 these are the two classes of the paper, since sqrt(2) rounds to
1 as 1 does.  (Exact distances would give 3 classes there; square rings would give 2, but have no rotations beyond
those of D4.)  A 5 x 5 kernel has 25, 15, 9, 6 and 4 numbers on the five levels.

Source: Symmetric kernels paper, section 3 and table 1; backpropagation through shared entries: section 4, table 2.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from emboundary.model.expansion import Expanded, check_sizes, plain_conv
from emboundary.model.groups import C1, D1, D2, D4, act

# The group that a layer of each level commutes with.
LEVEL_GROUPS = (C1, D1, D2, D4, D4)


def symmetry_classes(kernel: int, level: int) -> NDArray[np.int64]:
    """Class of every entry of a kernel in reading order, shape (k * k,); classes are counted from 0 as they appear.

    Raises:
        ValueError: a kernel below 1, or a level that is not 0 to 4.
    """
    if kernel < 1:
        raise ValueError(f"kernel is {kernel}; it must be the side of a square of at least 1 entry")
    if level not in range(len(LEVEL_GROUPS)):
        raise ValueError(
            f"level is {level}; the levels of symmetry are 0 (none), 1 (mirror in x), 2 (both mirrors), "
            "3 (D4) and 4 (rings)"
        )
    if level == 4:
        offset = np.arange(kernel) - (kernel - 1) / 2
        label = np.rint(np.hypot(offset[:, None], offset)).astype(np.int64)
    else:
        entries = np.arange(kernel * kernel).reshape(kernel, kernel)
        label = np.stack([act(element, entries) for element in LEVEL_GROUPS[level].elements]).min(axis=0)
    _, first, label = np.unique(label.ravel(), return_index=True, return_inverse=True)
    return np.asarray(np.argsort(np.argsort(first))[label], dtype=np.int64)


class SymmetricConv2d(Expanded):
    """Convolution whose kernels are constant on the classes of a symmetry: ``y_o = sum_i conv(x_i, w_oi[class])``.

    The parameters are one number for each class, ``weight`` (outputs, inputs, classes); a class's gradient is the
    sum over its entries.  Initialised as He's uniform for a fan-in of inputs * k * k: on uncorrelated pixels the sum
    over a class of n entries has n times the variance of one, so that sharing leaves the output's variance alone.

    Law: ``layer(L_g x) = L_g layer(x)`` for every g of ``LEVEL_GROUPS[level]``, the maps being trivial fields;
    a strided layer needs (side + 2 padding - kernel) mod stride = 0.  It does not hold for elements beyond: level
    1 is changed by rotations and the mirror in y, level 2 by those that exchange the axes.

    Shapes: (N, inputs, H, W) -> (N, outputs, H', W'); ``padding`` is kernel // 2 if it is None.

    Raises:
        ValueError: inputs, outputs, kernel or stride below 1, padding below 0, or a level that is not 0 to 4.

    Source: Symmetric kernels paper, sections 2 and 3.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        level: int,
        *,
        stride: int = 1,
        padding: int | None = None,
        bias: bool = False,
    ) -> None:
        super().__init__()
        check_sizes(inputs, outputs, stride, padding)
        classes = symmetry_classes(kernel, level)
        self.kernel, self.level, self.stride = kernel, level, stride
        self.padding = kernel // 2 if padding is None else padding
        bound = math.sqrt(6.0 / (inputs * kernel * kernel))
        self.weight = nn.Parameter(torch.empty(outputs, inputs, int(classes.max()) + 1).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.register_buffer("_classes", torch.as_tensor(classes), persistent=False)
        self._classes: Tensor

    def expand(self) -> Tensor:
        """Return the ordinary filter bank, (outputs, inputs, k, k)."""
        return torch.unflatten(self.weight.index_select(2, self._classes), 2, (self.kernel, self.kernel))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.bank(), self.bias, stride=self.stride, padding=self.padding)

    def plain(self) -> nn.Conv2d:
        """The same layer as an ordinary convolution with every entry written out."""
        return plain_conv(self.expand(), self.stride, self.padding, self.bias)
