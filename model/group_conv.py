"""Group convolution over a subgroup of D4, its transposed form, group batch norm and coset pooling.

One definition serves every network here: over the group C1 each layer *is* the ordinary one.

Feature maps.  A map has ``regular`` fields, each an orbit of |G| channels that G permutes, and ``trivial``
fields, single channels that G leaves in place (an image, or the result of coset pooling).  Channels are
ordered field by field with the group element fastest, then the trivial fields:

    (N, regular * |G| + trivial, H, W),   channel of field c, element h = c |G| + h

so that joining regular maps is plain concatenation.

Law.  For every g in G, with L_g acting on pixels and permuting each orbit (channel h goes to g h),
``layer(L_g x) = L_g layer(x)``, exactly, where the sampling grid allows it: a strided layer needs
(side + 2 padding - kernel) mod stride = 0.

Source: Cohen and Welling 2016, sections 6.1 (equations 10 and 11), 6.3 (coset pooling) and 7.1 (filter
transformation as an index table).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emboundary.model.groups import Group, act


@dataclass(frozen=True)
class Fields:
    """How many regular and trivial fields a feature map has."""

    regular: int = 0
    trivial: int = 0

    def channels(self, group: Group) -> int:
        """Channels of such a map: ``regular * |G| + trivial``."""
        return self.regular * group.order + self.trivial


def act_on_fields(group: Group, place: int, x: Tensor, fields: Fields) -> Tensor:
    """``L_g x``: turn the pixels of a feature map (N, C, H, W) and permute its orbits.

    ``place`` is the element's place in ``group.elements``.  This is the action that the law speaks of; the
    layers never call it.
    """
    turned = turn(group.elements[place], x)
    regular, trivial = torch.split(turned, [fields.regular * group.order, fields.trivial], dim=1)
    # Channel k of the result comes from channel g^-1 k.
    source = torch.as_tensor(group.product[group.inverse[place]])
    orbits = torch.unflatten(regular, 1, (fields.regular, group.order)).index_select(2, source).flatten(1, 2)
    return torch.cat([orbits, trivial], dim=1)


def turn(element: int, x: Tensor) -> Tensor:
    """Apply a D4 element to the last two axes (y, x) of a tensor; the same action as ``groups.act``."""
    out = x.transpose(-1, -2) if element & 4 else x
    dims = [axis for axis, bit in ((-2, 2), (-1, 1)) if element & bit]
    return out.flip(dims) if dims else out


def _orbit_index(group: Group, kernel: int) -> Tensor:
    """Where each entry of each expanded filter is found in the base filter; shape (|G|, |G| * k * k).

    Equation 11: the filter of output element g is psi(g^-1 h) turned by g.
    """
    base = np.arange(group.order * kernel * kernel).reshape(group.order, kernel, kernel)
    rows = [act(e, base[group.product[group.inverse[i]]]) for i, e in enumerate(group.elements)]
    return torch.as_tensor(np.stack(rows).reshape(group.order, -1))


def _lifting_index(group: Group, kernel: int) -> Tensor:
    """The same for trivial inputs (equation 10); shape (|G|, k * k)."""
    base = np.arange(kernel * kernel).reshape(kernel, kernel)
    return torch.as_tensor(np.stack([act(e, base) for e in group.elements]).reshape(group.order, -1))


class _OrbitFilters(nn.Module):
    """The parameters of a group convolution and their expansion to an ordinary filter bank."""

    def __init__(self, group: Group, inputs: Fields, outputs: int, kernel: int) -> None:
        super().__init__()
        self.group, self.inputs, self.outputs, self.kernel = group, inputs, outputs, kernel
        fan_in = inputs.channels(group) * kernel * kernel
        bound = math.sqrt(6.0 / fan_in)  # He initialisation, uniform, for the fan-in after expansion
        taps = kernel * kernel
        self.regular = nn.Parameter(torch.empty(outputs, inputs.regular, group.order * taps).uniform_(-bound, bound))
        self.trivial = nn.Parameter(torch.empty(outputs, inputs.trivial, taps).uniform_(-bound, bound))
        self.register_buffer("_regular_index", _orbit_index(group, kernel), persistent=False)
        self.register_buffer("_lifting_index", _lifting_index(group, kernel), persistent=False)
        self._regular_index: Tensor
        self._lifting_index: Tensor

    def expand(self) -> Tensor:
        """Return the ordinary filter bank, (outputs * |G|, input channels, k, k)."""
        order, kernel = self.group.order, self.kernel
        parts = []
        if self.inputs.regular:
            parts.append(_gather(self.regular, self._regular_index))
        if self.inputs.trivial:
            parts.append(_gather(self.trivial, self._lifting_index))
        # each part: (outputs, |G|, input channels of its kind, k * k)
        bank = torch.cat([torch.unflatten(p, -1, (-1, kernel * kernel)).flatten(2, 3) for p in parts], dim=2)
        return bank.reshape(self.outputs * order, self.inputs.channels(self.group), kernel, kernel)


def _gather(weight: Tensor, table: Tensor) -> Tensor:
    """Base filters (O, I, taps) and a table (|G|, taps) -> all turned filters (O, |G|, I, taps)."""
    outputs, inputs = weight.shape[:2]
    turned = weight.flatten(0, 1).index_select(1, table.flatten())
    return turned.reshape(outputs, inputs, *table.shape).transpose(1, 2)


class GroupConv2d(nn.Module):
    """Group convolution: trivial and regular fields in, regular fields out.

    ``[f * psi](g) = sum_h sum_k f_k(h) psi_k(g^-1 h)``, with one bias-free filter per output field; over C1 an
    ordinary convolution, with trivial inputs only the lifting layer.

    Shapes: (N, inputs.channels, H, W) -> (N, outputs * |G|, H', W').

    Raises:
        ValueError: no input field, or no output field.

    Source: Cohen and Welling 2016, equations 10, 11 and 18.
    """

    def __init__(
        self, group: Group, inputs: Fields, outputs: int, kernel: int, *, stride: int = 1, padding: int | None = None
    ) -> None:
        super().__init__()
        _check_fields(inputs, outputs)
        self.filters = _OrbitFilters(group, inputs, outputs, kernel)
        self.stride = stride
        self.padding = kernel // 2 if padding is None else padding

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.filters.expand(), stride=self.stride, padding=self.padding)

    def plain(self) -> nn.Conv2d:
        """The same layer as an ordinary convolution with every orbit expanded."""
        weight = self.filters.expand().detach()
        conv = nn.Conv2d(weight.shape[1], weight.shape[0], self.filters.kernel, self.stride, self.padding, bias=False)
        conv.weight.data.copy_(weight)
        return conv


class GroupDeconv2d(nn.Module):
    """Transposed group convolution that enlarges by ``stride``; kernel 2 stride, padding stride / 2.

    Every output pixel is made from the 2 x 2 nearest coarse pixels, the geometry is symmetric about the image
    centre, and the output is exactly ``stride`` times the input, without output padding.

    Shapes: (N, inputs.channels, H, W) -> (N, outputs * |G|, stride H, stride W).

    Raises:
        ValueError: an odd stride, no input field, or no output field.

    Source: deconvolution of the efficient-invariant-dense-prediction paper, section IV-B; over a group,
    equation 11 of Cohen and Welling 2016 holds for it with the roles of input and output exchanged.
    """

    def __init__(self, group: Group, inputs: Fields, outputs: int, stride: int) -> None:
        super().__init__()
        _check_fields(inputs, outputs)
        if stride % 2:
            raise ValueError(f"stride is {stride}; a symmetric deconvolution without output padding needs an even one")
        self.filters = _OrbitFilters(group, inputs, outputs, 2 * stride)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        weight = self.filters.expand().transpose(0, 1)
        return F.conv_transpose2d(x, weight, stride=self.stride, padding=self.stride // 2)

    def plain(self) -> nn.ConvTranspose2d:
        """The same layer as an ordinary transposed convolution with every orbit expanded."""
        weight = self.filters.expand().detach().transpose(0, 1)
        conv = nn.ConvTranspose2d(
            weight.shape[0], weight.shape[1], 2 * self.stride, self.stride, self.stride // 2, bias=False
        )
        conv.weight.data.copy_(weight)
        return conv


class OrbitBatchNorm2d(nn.BatchNorm2d):
    """Batch norm with one mean, variance, scale and shift per orbit of ``order`` channels side by side.

    Shapes: (N, fields * order, H, W) unchanged.
    """

    def __init__(self, order: int, fields: int) -> None:
        super().__init__(fields)
        self.order = order

    def forward(self, x: Tensor) -> Tensor:
        # An orbit's channels lie side by side, so that a whole field is one plane of order * H rows.
        n, _, h, w = x.shape
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


class CosetMeanConv2d(nn.Module):
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
        return F.conv2d(x, self.expand())

    def plain(self) -> nn.Conv2d:
        """The same layer as an ordinary convolution."""
        weight = self.expand().detach()
        conv = nn.Conv2d(weight.shape[1], weight.shape[0], 1, bias=False)
        conv.weight.data.copy_(weight)
        return conv


def coset_max(x: Tensor, order: int) -> Tensor:
    """Coset pooling over the whole group: the maximum of every orbit; an invariant map.

    Shapes: (N, fields * |G|, H, W) -> (N, fields, H, W).  Source: Cohen and Welling 2016, section 6.3.
    """
    if order == 1:
        return x
    return torch.unflatten(x, 1, (-1, order)).amax(dim=2)


def _check_fields(inputs: Fields, outputs: int) -> None:
    if inputs.regular + inputs.trivial < 1 or outputs < 1:
        raise ValueError(f"inputs are {inputs}, outputs {outputs}; a convolution needs at least one field of each")
