"""Lipschitz constants of layers that are not affine, each the smallest there is unless it says otherwise.

A pooling takes a function of each window, |f(u) - f(v)| <= c |u - v| for the n = k^2 pixels of windows u and v; if a
pixel is in at most m windows, the whole map has c sqrt(m).

    maximum       1
    Lp            (max w)^(1/p) for p >= 2, (sum w^r)^(1/(p r)) with r = 2 / (2 - p) for smaller p; if all weights are
                  1/n, n^(-1/max(p, 2))
    stochastic    sqrt(n) in evaluation: where a pixel stands alone, the others weigh as much as it does
    entropy       n^(3/2), there too
    scattering    1; of images that it extends by reflection, the square root of how often it sees a pixel

Source: review of pooling and invariance, sections 2 and 3.2; that scattering is a contraction: Bruna and Mallat 2013,
section 3.1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import singledispatch

from torch import Tensor, nn

from emboundary.model.coset import CosetPool2d, SubgroupPool2d
from emboundary.model.pooling import GlobalMax, MaxoutChannels
from emboundary.model.pooling_lp import LearnedLpPool2d, LpPool2d
from emboundary.model.pooling_responses import EntropyPool2d, StochasticPool2d
from emboundary.model.scattering import Scattering2d


@singledispatch
def constant(_module: nn.Module) -> float | None:
    """Lipschitz constant of a module that is not affine and consists of nothing else; None: it is not known.

    For a module of your own write ``@constant.register`` above a function of it.
    """
    return None


@constant.register(nn.ReLU)
@constant.register(nn.Tanh)
@constant.register(GlobalMax)
@constant.register(MaxoutChannels)
@constant.register(CosetPool2d)
@constant.register(SubgroupPool2d)
def _(_module: nn.Module) -> float:
    return 1.0


@constant.register
def _(_module: nn.Sigmoid) -> float:
    return 0.25


@constant.register
def _(module: nn.LeakyReLU) -> float:
    return max(1.0, abs(module.negative_slope))


@constant.register
def _(module: nn.MaxPool2d) -> float:
    kernel, stride, dilation = (_pair(v) for v in (module.kernel_size, module.stride, module.dilation))
    # A row is in at most this many windows: those of its residue, where a dilated window skips rows.
    windows = [math.ceil(k / (s // math.gcd(s, d))) for k, s, d in zip(kernel, stride, dilation, strict=True)]
    return math.sqrt(math.prod(windows))


@constant.register
def _(module: LpPool2d) -> float:
    exponents = module.p.flatten().tolist() if isinstance(module.p, Tensor) else [module.p]
    return _of_exponents(exponents, module.weights) * _overlap(module.kernel, module.stride)


@constant.register
def _(module: LearnedLpPool2d) -> float:
    return _of_exponents(module.exponents.tolist(), module.weights) * _overlap(module.kernel, module.stride)


@constant.register
def _(module: StochasticPool2d) -> float:
    return module.kernel * _overlap(module.kernel, module.stride)


@constant.register
def _(module: EntropyPool2d) -> float:
    return module.kernel**3 * _overlap(module.kernel, module.stride)


def reflected(module: Scattering2d, sides: Sequence[int]) -> float:
    """Constant of a scattering of images with these sides (y, x): the root of how often it sees a pixel."""
    if module.padding == "zero":
        return 1.0
    # reflection repeats all pixels near a border but the outermost; those of a small image at both borders
    margin = 2**module.scales
    return math.sqrt(math.prod(3 if side <= 2 * margin + 1 else 2 for side in sides))


def _of_exponents(exponents: Sequence[float], weights: Sequence[float]) -> float:
    """That of one window whose weights are products of these along both axes, for the worst of some exponents."""
    top = max(weights)
    worst = 0.0
    for p in exponents:
        # the sum over both axes with the largest weight taken out: r grows without bound as p comes near 2
        shares = sum((w / top) ** (2 / (2 - p)) for w in weights) ** ((2 - p) / p) if p < 2 else 1.0
        worst = max(worst, top ** (2 / p) * shares)
    return worst


def _overlap(kernel: int, stride: int) -> float:
    """Square root of the number of windows that a pixel is in, at most."""
    return float(math.ceil(kernel / stride))


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])
