"""The pixels of pooling windows, one map for each place in the window, and what is safe to divide by.

Windows are taken along one axis at a time: a pooling whose weights are separable, which all are here, is pooled
along x and then along y.  Every map has the windows' shape, and all is said without a size of the image, so that one
exported graph serves all of them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def taps(x: Tensor, axis: int, kernel: int, stride: int) -> list[Tensor]:
    """The first, second, ..., last pixel of every window along an axis.

    Shapes: (N, C, H, W) -> ``kernel`` maps with (extent - kernel) // stride + 1 in place of the axis's extent.

    Args:
        x: a map.
        axis: 2 for y, 3 for x.
        kernel: pixels of a window.
        stride: pixels from one window to the next.
    """
    steps = (stride, 1) if axis == 2 else (1, stride)
    found = []
    for i in range(kernel):
        # as many pixels off the end as there are behind this one in the last window
        window = slice(i, i + 1 - kernel or None)
        near = x[:, :, window] if axis == 2 else x[..., window]
        # a strided slice, in the form that runtimes are fastest at
        found.append(near if stride == 1 else F.max_pool2d(near, 1, steps))
    return found


def padded(x: Tensor, padding: int) -> Tensor:
    """A map with a border of zeros."""
    return F.pad(x, (padding,) * 4) if padding else x


def divisor(x: Tensor) -> Tensor:
    """What a quantity of at least 0 may be divided by: 1 where it is 0, and no gradient there."""
    return torch.where(x > 0, x, 1.0)
