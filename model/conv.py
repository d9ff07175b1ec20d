"""Convolution with rotated or flipped copies of one kernel, combined by maxout.

``y = max_t conv(x, t W)`` over a set of kernel transformations t.  The same parameters serve every copy, and
maxout brings the number of feature maps back to that of an ordinary layer.

Transformations are permutations of the k x k kernel entries:

- rotations by 360 / n degrees, n = 2, 4 or 8.  Eight angles exist for 3 x 3 kernels only, where a turn by 45
  degrees moves the eight outer entries one step round the centre;
- the flip set {identity, horizontal, vertical}.  It is not closed under composition (both flips together
  are a rotation by 180 degrees), so a layer with it is *not* flip-equivariant; it is the published layer;
- the eight elements of D4, which are a group, so that this maxout layer is exactly equivariant on an image.

Source: the efficient-invariant-dense-prediction paper, sections III-B and III-C, figures 1 to 4; maxout:
Goodfellow et al. 2013.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from emboundary.model.groups import C2, C4, D4, act

# The outer entries of a 3 x 3 kernel in reading order, walked counter-clockwise from the upper left.
_RING = (0, 3, 6, 7, 8, 5, 2, 1)


def rotations(angles: int, kernel: int) -> NDArray[np.int64]:
    """Kernel permutations for ``angles`` equal rotations, shape (angles, k * k): entry i comes from ``[t, i]``.

    Raises:
        ValueError: ``angles`` not 2, 4 or 8, or 8 angles for a kernel that is not 3 x 3.
    """
    base = np.arange(kernel * kernel).reshape(kernel, kernel)
    if angles in (2, 4):
        group = C2 if angles == 2 else C4
        return np.stack([act(e, base).ravel() for e in group.elements])
    if angles != 8 or kernel != 3:
        raise ValueError(
            f"angles is {angles} for a {kernel} x {kernel} kernel; 2 or 4 rotations exist for any kernel, "
            "8 for 3 x 3 kernels only"
        )
    table = np.tile(np.arange(9), (8, 1))
    for step in range(8):
        table[step, list(_RING)] = [_RING[(i - step) % 8] for i in range(8)]
    return table


def flips(kernel: int) -> NDArray[np.int64]:
    """Kernel permutations of the published flip set: identity, horizontal, vertical; shape (3, k * k)."""
    base = np.arange(kernel * kernel).reshape(kernel, kernel)
    return np.stack([act(e, base).ravel() for e in (0, 1, 2)])


def d4_elements(kernel: int) -> NDArray[np.int64]:
    """Kernel permutations of all eight elements of D4; shape (8, k * k)."""
    base = np.arange(kernel * kernel).reshape(kernel, kernel)
    return np.stack([act(e, base).ravel() for e in D4.elements])


class KernelOrbitConv2d(nn.Module):
    """Convolution with transformed copies of each kernel: ``y[o, t] = conv(x, t W[o])``; no bias.

    Shapes: (N, inputs, H, W) -> (N, outputs * T, H, W), the transformation fastest; ``maxout`` over the T
    copies (``coset_max``) follows, after batch norm shared by the copies.

    Raises:
        ValueError: a table whose second axis is not k * k long.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, table: NDArray[np.int64]) -> None:
        super().__init__()
        if table.shape[1] != kernel * kernel:
            raise ValueError(f"table has {table.shape[1]} entries; a {kernel} x {kernel} kernel has {kernel * kernel}")
        bound = math.sqrt(6.0 / (inputs * kernel * kernel))
        self.weight = nn.Parameter(torch.empty(outputs, inputs, kernel * kernel).uniform_(-bound, bound))
        self.register_buffer("_table", torch.as_tensor(table), persistent=False)
        self._table: Tensor
        self.kernel = kernel

    @property
    def copies(self) -> int:
        """Number of transformed copies, T."""
        return int(self._table.shape[0])

    def expand(self) -> Tensor:
        """Return the ordinary filter bank, (outputs * T, inputs, k, k)."""
        outputs, inputs, taps = self.weight.shape
        bank = self.weight.index_select(2, self._table.flatten()).reshape(outputs, inputs, self.copies, taps)
        return bank.transpose(1, 2).reshape(outputs * self.copies, inputs, self.kernel, self.kernel)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.expand(), padding=self.kernel // 2)

    def plain(self) -> nn.Conv2d:
        """The same layer as an ordinary convolution with every copy written out."""
        weight = self.expand().detach()
        conv = nn.Conv2d(weight.shape[1], weight.shape[0], self.kernel, 1, self.kernel // 2, bias=False)
        conv.weight.data.copy_(weight)
        return conv
