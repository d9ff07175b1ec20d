"""Convolution with rotated or flipped copies of one kernel, combined by maxout.

``y = max_t conv(x, t W)`` over a set of kernel transformations t.  The same parameters serve every copy, and
maxout brings the number of feature maps back to that of an ordinary layer.

Transformations are permutations of the k x k kernel entries:

- rotations by 360 / n degrees, n = 2, 4 or 8.  Eight angles exist for 3 x 3 kernels only, where a turn by 45
  degrees moves the eight outer entries one step round the centre.  These eight steps are a cyclic group of
  kernel permutations, but the pixel grid has the multiples of 90 degrees only: the maxout layer commutes with C4
  exactly, and with turns by 45 degrees approximately;
- the flip set {identity, horizontal, vertical}, for kernels of any size.  It is not closed under composition (both
  flips together are a rotation by 180 degrees), so a layer with it is *not* flip-equivariant; it is the published
  layer;
- the eight elements of D4, which are a group, so that this maxout layer is exactly equivariant on an image.

Source: the efficient-invariant-dense-prediction paper, sections III-B and III-C, figures 1 to 4; maxout:
Goodfellow et al. 2013.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from emboundary.model.expansion import Expanded, check_sizes, permuted_copies, plain_conv
from emboundary.model.group_conv import coset_max
from emboundary.model.groups import C2, C4, D4, act

Copies = Literal["rotations-2", "rotations-4", "rotations-8", "flips", "d4"]
Combination = Literal["maxout", "concatenate"]

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


class KernelOrbitConv2d(Expanded):
    """Convolution with transformed copies of each kernel: ``y[o, t] = conv(x, t W[o])``; no bias.

    Shapes: (N, inputs, H, W) -> (N, outputs * T, H', W'), the transformation fastest; ``maxout`` over the T
    copies (``coset_max``) follows, after batch norm shared by the copies.  ``padding`` is kernel // 2 if it is None.

    Raises:
        ValueError: inputs, outputs or stride below 1, padding below 0, or a table whose rows are no permutations of
            the k * k entries.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        table: NDArray[np.int64],
        *,
        stride: int = 1,
        padding: int | None = None,
    ) -> None:
        super().__init__()
        check_sizes(inputs, outputs, stride, padding)
        if table.shape[1] != kernel * kernel:
            raise ValueError(f"table has {table.shape[1]} entries; a {kernel} x {kernel} kernel has {kernel * kernel}")
        if not np.array_equal(np.sort(table, axis=1), np.tile(np.arange(kernel * kernel), (len(table), 1))):
            raise ValueError(
                f"table is {table.tolist()}; every row must be a permutation of 0 to {kernel * kernel - 1}"
            )
        bound = math.sqrt(6.0 / (inputs * kernel * kernel))
        self.weight = nn.Parameter(torch.empty(outputs, inputs, kernel * kernel).uniform_(-bound, bound))
        self.register_buffer("_table", torch.as_tensor(table), persistent=False)
        self._table: Tensor
        self.kernel, self.stride = kernel, stride
        self.padding = kernel // 2 if padding is None else padding

    @property
    def copies(self) -> int:
        """Number of transformed copies, T."""
        return int(self._table.shape[0])

    def expand(self) -> Tensor:
        """Return the ordinary filter bank, (outputs * T, inputs, k, k)."""
        bank = permuted_copies(self.weight, self._table).flatten(0, 1)
        return torch.unflatten(bank, 2, (self.kernel, self.kernel))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.bank(), stride=self.stride, padding=self.padding)

    def plain(self) -> nn.Conv2d:
        """The same layer as an ordinary convolution with every copy written out."""
        return plain_conv(self.expand(), self.stride, self.padding)


class OrbitMaxoutConv2d(KernelOrbitConv2d):
    """The published layer in one piece: transformed copies of each kernel, combined.

    ``combine="maxout"``: ``y[o] = max_t conv(x, t W[o])``, as many maps as an ordinary layer has.
    ``combine="concatenate"``: all T maps of every kernel, the transformation fastest.  Batch norm between the copies
    and the maximum needs the two steps apart: ``KernelOrbitConv2d``, a norm, ``coset_max``.

    Law, on trivial fields, for ``rotations-2`` (C2), ``rotations-4`` and ``rotations-8`` (C4) and ``d4`` (D4), where
    (side + 2 padding - kernel) mod stride = 0.  With maxout ``layer(L_g x) = L_g layer(x)`` on trivial fields; the
    concatenation over 2 or 4 rotations or D4 is one of regular fields, that over 8 rotations has its channels moved
    two places round by a turn of 90 degrees.  It holds for no other element, and for none with ``flips``.

    Shapes: (N, inputs, H, W) -> (N, outputs, H', W') or (N, outputs * T, H', W').

    Raises:
        ValueError: copies or a combination that is not known, eight angles for a kernel that is not 3 x 3, inputs,
            outputs, kernel or stride below 1, or padding below 0.

    Source: the efficient-invariant-dense-prediction paper, section III-B and figure 3.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        copies: Copies,
        *,
        combine: Combination = "maxout",
        stride: int = 1,
        padding: int | None = None,
    ) -> None:
        if copies not in _TABLES:
            raise ValueError(f"copies is {copies!r}; a kernel's copies are one of {', '.join(_TABLES)}")
        if combine not in get_args(Combination):
            raise ValueError(f"combine is {combine!r}; copies are combined by {' or '.join(get_args(Combination))}")
        if kernel < 1:
            raise ValueError(f"kernel is {kernel}; it must be the side of a square of at least 1 entry")
        super().__init__(inputs, outputs, kernel, _TABLES[copies](kernel), stride=stride, padding=padding)
        self.combine = combine

    def forward(self, x: Tensor) -> Tensor:
        maps = super().forward(x)
        return coset_max(maps, self.copies) if self.combine == "maxout" else maps


_TABLES: dict[str, Callable[[int], NDArray[np.int64]]] = {
    "rotations-2": lambda kernel: rotations(2, kernel),
    "rotations-4": lambda kernel: rotations(4, kernel),
    "rotations-8": lambda kernel: rotations(8, kernel),
    "flips": flips,
    "d4": d4_elements,
}
