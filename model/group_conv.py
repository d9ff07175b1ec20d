"""Group convolution, its transposed form and group batch norm, for any group of integer matrices.

One definition serves every network here: over the group C1 each layer *is* the ordinary one.  Feature maps are laid
out as ``fields`` says; ``coset`` pools over their orbits.

Law.  For every g in G, with L_g acting on pixels and permuting each orbit (channel h goes to g h),
``layer(L_g x) = L_g layer(x)``, exactly, where the sampling grid allows it: a strided layer needs
(side + 2 padding - kernel) mod stride = 0.  A nonlinearity that acts on every value alike (``nn.ReLU``) needs no form
of its own: it changes values and L_g moves them (section 6.2).  So does pooling over windows of pixels whose grid
divides the sides.

Source: Cohen and Welling 2016, sections 6.1 (equations 10 and 11), 6.2 and 7.1 (filter transformation as an index
table).
"""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emboundary.model.coset import CosetPool2d, SubgroupPool2d, coset_max, coset_pool, restrict, subgroup_pool
from emboundary.model.expansion import Expanded, permuted_copies, plain_conv
from emboundary.model.fields import Fields, act_on_fields, turn
from emboundary.model.groups import Group, Places

_Plain = TypeVar("_Plain", nn.Conv2d, nn.ConvTranspose2d)

__all__ = [
    "CosetMeanConv2d",
    "CosetPool2d",
    "Fields",
    "GroupBatchNorm2d",
    "GroupConv2d",
    "GroupDeconv2d",
    "OrbitBatchNorm2d",
    "SubgroupPool2d",
    "act_on_fields",
    "coset_max",
    "coset_pool",
    "restrict",
    "subgroup_pool",
    "turn",
]


class _OrbitFilters(Expanded):
    """The parameters of a group convolution and their expansion to an ordinary filter bank."""

    def __init__(self, group: Group, inputs: Fields, outputs: int, kernel: int) -> None:
        super().__init__()
        self.group, self.inputs, self.outputs, self.kernel = group, inputs, outputs, kernel
        live = group.kernel_taps(kernel)
        fan_in = inputs.channels(group) * len(live)
        bound = math.sqrt(6.0 / fan_in)  # He initialisation, uniform, for the fan-in after expansion
        self.regular = nn.Parameter(
            torch.empty(outputs, inputs.regular, group.order * len(live)).uniform_(-bound, bound)
        )
        self.trivial = nn.Parameter(torch.empty(outputs, inputs.trivial, len(live)).uniform_(-bound, bound))
        on_pixels, on_group = _lookups(group, kernel)
        self.register_buffer("_regular_table", torch.as_tensor(on_group), persistent=False)
        self.register_buffer("_lifting_table", torch.as_tensor(on_pixels), persistent=False)
        # None where every entry of the window is a parameter, as it is for all groups of square pixels
        whole = len(live) == kernel * kernel
        self.register_buffer("_live", None if whole else torch.as_tensor(live), persistent=False)
        self._regular_table: Tensor
        self._lifting_table: Tensor
        self._live: Tensor | None

    def expand(self) -> Tensor:
        """Return the ordinary filter bank, (outputs * |G|, input channels, k, k)."""
        parts = []
        if self.inputs.regular:
            parts.append(permuted_copies(self.regular, self._regular_table))
        if self.inputs.trivial:
            parts.append(permuted_copies(self.trivial, self._lifting_table))
        # each part: (outputs, |G|, input channels of its kind, entries)
        entries = self.trivial.shape[2]
        parts = [torch.unflatten(part, -1, (-1, entries)).flatten(2, 3) for part in parts]
        bank = parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)
        if self._live is not None:
            bank = bank.new_zeros(*bank.shape[:3], self.kernel**2).index_copy(3, self._live, bank)
        return bank.reshape(self.outputs * self.group.order, -1, self.kernel, self.kernel)


def _lookups(group: Group, kernel: int) -> tuple[Places, Places]:
    """Where each entry of each expanded filter is found in the base filter.

    First for trivial inputs (equation 10), (|G|, entries), then for regular ones (equation 11: the filter of output
    element g is psi(g^-1 h) turned by g), (|G|, |G| * entries).
    """
    live = group.kernel_taps(kernel)
    on_pixels = np.searchsorted(live, group.kernel_table(kernel)[:, live])
    before = group.product[group.inverse]  # [g, h] -> g^-1 h
    on_group = before[:, :, None] * len(live) + on_pixels[:, None, :]
    return on_pixels, on_group.reshape(group.order, -1)


class _GroupLayer(nn.Module):
    """What both convolutions have: filters and, if asked for, one bias for each regular field they give."""

    bias: nn.Parameter | None

    def __init__(self, group: Group, inputs: Fields, outputs: int, kernel: int, *, bias: bool) -> None:
        super().__init__()
        if inputs.regular + inputs.trivial < 1 or outputs < 1:
            raise ValueError(f"inputs are {inputs}, outputs {outputs}; a convolution needs at least one field of each")
        self.filters = _OrbitFilters(group, inputs, outputs, kernel)
        bound = (inputs.channels(group) * kernel * kernel) ** -0.5
        self.register_parameter("bias", nn.Parameter(torch.empty(outputs).uniform_(-bound, bound)) if bias else None)

    def expand_bias(self) -> Tensor | None:
        """Return the ordinary bias, (outputs * |G|,), or None."""
        return None if self.bias is None else self.bias.repeat_interleave(self.filters.group.order)

    def _as_plain(self, conv: _Plain, weight: Tensor) -> _Plain:
        """Give an ordinary convolution this layer's weights."""
        with torch.no_grad():
            conv.weight.copy_(weight)
            if conv.bias is not None and (bias := self.expand_bias()) is not None:
                conv.bias.copy_(bias)
        return conv


class GroupConv2d(_GroupLayer):
    """Group convolution: trivial and regular fields in, regular fields out.

    ``[f * psi](g) = sum_h sum_k f_k(h) psi_k(g^-1 h)``, with one filter and, with ``bias``, one number to add per
    output field; over C1 an ordinary convolution, with trivial inputs only the lifting layer.  Over C6 and D6 the
    filter is the hexagon that the kernel holds.

    Shapes: (N, inputs.channels, H, W) -> (N, outputs * |G|, H', W'), H' = (H + 2 padding - kernel) // stride + 1;
    ``padding`` is kernel // 2 where it is not given.

    Raises:
        ValueError: no input field, no output field, a kernel or stride below 1, a padding below 0, or an even
            kernel over a group outside D4.

    Source: Cohen and Welling 2016, equations 10, 11 and 18; the bias: end of section 6.1.
    """

    def __init__(
        self,
        group: Group,
        inputs: Fields,
        outputs: int,
        kernel: int,
        *,
        stride: int = 1,
        padding: int | None = None,
        bias: bool = False,
    ) -> None:
        if stride < 1:
            raise ValueError(f"stride is {stride}; it must be a number of pixels from 1")
        if padding is not None and padding < 0:
            raise ValueError(f"padding is {padding}; it must be 0 or a number of pixels, or None for kernel // 2")
        super().__init__(group, inputs, outputs, kernel, bias=bias)
        self.stride = stride
        self.padding = kernel // 2 if padding is None else padding

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.filters.bank(), self.expand_bias(), stride=self.stride, padding=self.padding)

    def expand(self) -> Tensor:
        """Return the ordinary filter bank, (outputs * |G|, input channels, k, k)."""
        return self.filters.expand()

    def plain(self) -> nn.Conv2d:
        """The same layer as an ordinary convolution with every orbit expanded."""
        weight, has_bias = self.expand(), self.bias is not None
        conv = nn.Conv2d(
            weight.shape[1], weight.shape[0], self.filters.kernel, self.stride, self.padding, bias=has_bias
        )
        return self._as_plain(conv, weight)


class GroupDeconv2d(_GroupLayer):
    """Transposed group convolution that enlarges by ``stride``; kernel 2 stride, padding stride / 2.

    Every output pixel is made from the 2 x 2 nearest coarse pixels, the geometry is symmetric about the image
    centre, and the output is exactly ``stride`` times the input, without output padding.

    Shapes: (N, inputs.channels, H, W) -> (N, outputs * |G|, stride H, stride W).

    Raises:
        ValueError: a stride that is odd or below 2, no input field, no output field, or a group outside D4, which
            has no even kernels.

    Source: deconvolution of the efficient-invariant-dense-prediction paper, section IV-B; over a group,
    equation 11 of Cohen and Welling 2016 holds for it with the roles of input and output exchanged.
    """

    def __init__(self, group: Group, inputs: Fields, outputs: int, stride: int, *, bias: bool = False) -> None:
        if stride % 2 or stride < 2:
            raise ValueError(
                f"stride is {stride}; a symmetric deconvolution without output padding needs an even one from 2"
            )
        super().__init__(group, inputs, outputs, 2 * stride, bias=bias)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        weight = self.filters.bank().transpose(0, 1)
        return F.conv_transpose2d(x, weight, self.expand_bias(), stride=self.stride, padding=self.stride // 2)

    def expand(self) -> Tensor:
        """Return the ordinary filter bank, (input channels, outputs * |G|, 2 stride, 2 stride)."""
        return self.filters.expand().transpose(0, 1)

    def plain(self) -> nn.ConvTranspose2d:
        """The same layer as an ordinary transposed convolution with every orbit expanded."""
        weight, has_bias = self.expand(), self.bias is not None
        conv = nn.ConvTranspose2d(
            weight.shape[0], weight.shape[1], 2 * self.stride, self.stride, self.stride // 2, bias=has_bias
        )
        return self._as_plain(conv, weight)


class OrbitBatchNorm2d(nn.BatchNorm2d):
    """Batch norm with one mean, variance, scale and shift per orbit of ``order`` channels side by side.

    Shapes: (N, fields * order, H, W) unchanged.

    Raises:
        ValueError: a map of other channels.
    """

    def __init__(self, order: int, fields: int) -> None:
        super().__init__(fields)
        self.order = order

    def forward(self, x: Tensor) -> Tensor:
        # An orbit's channels lie side by side, so that a whole field is one plane of order * H rows.
        n, channels, h, w = x.shape
        if channels != self.num_features * self.order:
            raise ValueError(
                f"x has {channels} channels; {self.num_features} orbits of {self.order} channels each are "
                f"{self.num_features * self.order}"
            )
        return super().forward(x.reshape(n, self.num_features, self.order * h, w)).reshape(x.shape)

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """Inference form ``scale * x + shift``, both of shape (fields * order,)."""
        assert self.running_mean is not None and self.running_var is not None
        scale = self.weight / torch.sqrt(self.running_var + self.eps)
        shift = self.bias - self.running_mean * scale
        return scale.repeat_interleave(self.order), shift.repeat_interleave(self.order)


class GroupBatchNorm2d(OrbitBatchNorm2d):
    """Batch norm with one mean, variance, scale and shift per regular field, shared by its orbit.

    Shapes: (N, fields * |G|, H, W) unchanged.  Source: Cohen and Welling 2016, end of section 6.1.
    """

    def __init__(self, group: Group, fields: int) -> None:
        super().__init__(group.order, fields)
        self.group = group


class CosetMeanConv2d(Expanded):
    """Linear map of coset averages: regular fields in, trivial fields out, 1x1, no bias.

    ``y_o = sum_c W_oc (1/|G|) sum_h x_c(h)``, which is an ordinary 1x1 convolution whose weight is constant on
    every orbit.

    Shapes: (N, fields * |G|, H, W) -> (N, outputs, H, W).  Source: average in place of the maximum in the coset
    pooling of Cohen and Welling 2016, section 6.3.
    """

    def __init__(self, group: Group, fields: int, outputs: int) -> None:
        super().__init__()
        self.order = group.order
        bound = fields**-0.5
        self.weight = nn.Parameter(torch.empty(outputs, fields).uniform_(-bound, bound))

    def expand(self) -> Tensor:
        """Return the ordinary filter bank, (outputs, fields * |G|, 1, 1)."""
        return (self.weight / self.order).repeat_interleave(self.order, dim=1)[:, :, None, None]

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.bank())

    def plain(self) -> nn.Conv2d:
        """The same layer as an ordinary convolution."""
        return plain_conv(self.expand(), 1, 0)
