"""Orbit expansion and batch-norm folding: a trained network as an ordinary CNN.

A unit computes ``scale * (W * x) + shift``, with W the expanded orbit of a smaller filter bank and (scale,
shift) the inference form of its batch norm.  Both are constant once training is over, so that

    scale * (W * x) + shift = (scale W) * x + shift

is one convolution with a bias.  The products are formed in float64 and rounded once.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from emboundary.model.blocks import InvariantLogit, Unit
from emboundary.model.conv import KernelOrbitConv2d
from emboundary.model.group_conv import CosetMeanConv2d, GroupConv2d, GroupDeconv2d, OrbitBatchNorm2d
from emboundary.model.pooling import RegimePool
from emboundary.model.pooling_lp import LearnedLpPool2d
from emboundary.model.symmetric import SymmetricConv2d
from emboundary.model.symmetric_deconv import SymmetricDeconv2d

PlainConv = nn.Conv2d | nn.ConvTranspose2d
_EXPANDABLE = (GroupConv2d, GroupDeconv2d, KernelOrbitConv2d, SymmetricConv2d, SymmetricDeconv2d)


def expand_and_fold(net: nn.Module) -> nn.Module:
    """Copy a network for inference, every unit's convolution expanded and its batch norm folded in.

    The copy is in evaluation mode, maps the same shapes, and holds only layers that every runtime knows: each
    ``Unit`` keeps its maxout and its ReLU, its ``conv`` becomes an ``nn.Conv2d`` or ``nn.ConvTranspose2d`` with
    a bias, its ``norm`` an ``nn.Identity``.  The network that is given stays as it is.

    Law: ``expand_and_fold(net)(x) = net.eval()(x)`` up to float rounding.

    Raises:
        TypeError: a unit with a layer that is not of this package.
    """
    plain = copy.deepcopy(net).eval()
    for module in plain.modules():
        if isinstance(module, Unit):
            module.conv, module.norm = _fold(module.conv, module.norm), nn.Identity()
        elif isinstance(module, InvariantLogit) and isinstance(module.of_mean, CosetMeanConv2d):
            module.of_mean = module.of_mean.plain()
        elif isinstance(module, RegimePool) and isinstance(module.pool, LearnedLpPool2d):
            module.pool = module.pool.plain()
    return plain


def _fold(conv: nn.Module, norm: nn.Module) -> PlainConv:
    if not isinstance(conv, _EXPANDABLE) or not isinstance(norm, OrbitBatchNorm2d):
        raise TypeError(
            f"a unit of {type(conv).__name__} and {type(norm).__name__} cannot be folded; "
            "give a group, kernel-orbit or symmetric convolution with an OrbitBatchNorm2d"
        )
    bare = conv.double().plain()
    with torch.no_grad():
        scale, shift = norm.double().scale_and_shift()
        # output channels are the second axis of a transposed convolution's weight
        outputs = (1, -1, 1, 1) if isinstance(bare, nn.ConvTranspose2d) else (-1, 1, 1, 1)
        if bare.bias is not None:
            shift = shift + scale * bare.bias.double()
        return _with_bias(bare, bare.weight.double() * scale.reshape(outputs), shift)


def _with_bias(bare: PlainConv, weight: Tensor, bias: Tensor) -> PlainConv:
    kind = type(bare)
    size, stride, padding = bare.kernel_size, bare.stride, bare.padding
    assert len(size) == len(stride) == 2 and not isinstance(padding, str)
    folded = kind(
        bare.in_channels, bare.out_channels, (size[0], size[1]), (stride[0], stride[1]), (padding[0], padding[1])
    )
    folded.weight.copy_(weight)
    assert folded.bias is not None
    folded.bias.copy_(bias)
    return folded.eval()
