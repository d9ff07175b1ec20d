"""Lp pooling: between the average (p = 1) and the maximum (p -> infinity) of absolute values.

    y = (sum_i w_i |x_i|^p)^(1/p),   sum_i w_i = 1,

over the pixels i of each window; w_i is 1 / k^2, or a Gaussian envelope.  The sign is lost: the result is at least 0.

Numbers.  The maximum m of each window is taken out, ``m (sum_i w_i (|x_i| / m)^p)^(1/p)``, so that nothing overflows
or vanishes for any finite p and any finite input; a window of zeros gives 0, with gradient 0.  As the value does not
depend on m, no gradient goes through it.

Source: Pooling and invariance review, section 2.4 (Lp, Gaussian envelope: Sermanet, Chintala and LeCun 2012) and
section 2.6 (learned p: Gulcehre et al. 2014, whose unit learns p = 1 + softplus(rho)).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emboundary.model.group_conv import Fields
from emboundary.model.groups import Group
from emboundary.model.pooling_windows import divisor, padded, taps

Power = Callable[[Tensor], Tensor]


class LpPool2d(nn.Module):
    """Lp pooling with a fixed p, over plain windows or under a Gaussian envelope.

    Law: ``layer(L_g x) = L_g layer(x)`` for every g of D4, any fields, where (side + 2 padding - kernel) mod
    stride = 0.

    Shapes: (N, C, H, W) -> (N, C, (H + 2 padding - kernel) // stride + 1, the same of W); the padding is of zeros,
    which count.

    Args:
        kernel, stride, padding: the windows.
        p: the exponent, or one for every channel.
        sigma: standard deviation in pixels of the envelope exp(-r^2 / (2 sigma^2)) about the window's centre, r the
            distance from it; None: all pixels count alike.

    Raises:
        ValueError: p below 1, infinite or not a number, or sigma below kernel / 8.

    Source: Pooling and invariance review, section 2.4.
    """

    p: float | Tensor

    def __init__(
        self, kernel: int, stride: int, *, p: float | Tensor, padding: int = 0, sigma: float | None = None
    ) -> None:
        super().__init__()
        self.kernel, self.stride, self.padding = kernel, stride, padding
        self.weights = _envelope(kernel, sigma)
        if isinstance(p, Tensor):
            for exponent in p.tolist():
                check_exponent(exponent)
            self.register_buffer("p", p.detach().clone()[:, None, None])
        else:
            check_exponent(p)
            self.p = p

    def forward(self, x: Tensor) -> Tensor:
        windows = padded(x, self.padding).abs()
        return _lp(windows, self.weights, self.stride, _power(self.p), _root(self.p))


class LearnedLpPool2d(nn.Module):
    """Lp pooling with one p for every field, learned: ``p = 1 + softplus(rho)``, never below 1.

    The channels of a regular field share their p, which keeps the law: as ``LpPool2d``.

    Shapes: as ``LpPool2d``; C = ``fields.channels(group)``.

    Args:
        group: that the map is one over.
        fields: of the map.
        kernel, stride, padding: the windows.
        p: exponent that learning begins with.

    Raises:
        ValueError: p not above 1, or infinite.

    Source: Gulcehre et al. 2014, in the Pooling and invariance review, section 2.6; there an activation over several
    maps, here a pooling over pixels.
    """

    def __init__(
        self, group: Group, fields: Fields, kernel: int, stride: int, *, p: float = 4.0, padding: int = 0
    ) -> None:
        super().__init__()
        check_first_exponent(p)
        self.group, self.fields = group, fields
        self.kernel, self.stride, self.padding = kernel, stride, padding
        self.weights = _envelope(kernel, None)
        # softplus backwards; for large p, where expm1 overflows, the two differ by less than rounding
        rho = math.log(math.expm1(p - 1)) if p < 30 else float(p - 1)
        self.rho = nn.Parameter(torch.full((fields.regular + fields.trivial,), rho))

    @property
    def exponents(self) -> Tensor:
        """The p of every field, regular ones first; shape (regular + trivial,)."""
        return 1 + F.softplus(self.rho)

    def plain(self) -> ChannelLpPool2d:
        """The same pooling with the exponent of every channel written out."""
        return ChannelLpPool2d(self.kernel, self.stride, self._per_channel().detach(), padding=self.padding)

    def _per_channel(self) -> Tensor:
        regular, trivial = torch.split(self.exponents, [self.fields.regular, self.fields.trivial])
        return torch.cat([regular.repeat_interleave(self.group.order), trivial])[:, None, None]

    def forward(self, x: Tensor) -> Tensor:
        p = self._per_channel()
        windows = padded(x, self.padding).abs()
        return _lp(windows, self.weights, self.stride, lambda ratio: ratio**p, lambda mean: mean ** (1 / p))


class ChannelLpPool2d(nn.Module):
    """Lp pooling with a fixed p for every channel, (C, 1, 1): what ``LearnedLpPool2d`` is once it has learned."""

    def __init__(self, kernel: int, stride: int, p: Tensor, *, padding: int = 0) -> None:
        super().__init__()
        self.stride, self.padding = stride, padding
        self.weights = _envelope(kernel, None)
        self.register_buffer("p", p)
        self.register_buffer("inverse", 1 / p)
        self.p: Tensor
        self.inverse: Tensor

    def forward(self, x: Tensor) -> Tensor:
        windows = padded(x, self.padding).abs()
        return _lp(windows, self.weights, self.stride, lambda ratio: ratio**self.p, lambda mean: mean**self.inverse)


def check_exponent(p: float) -> None:
    """Refuse what is no p of a norm.

    Raises:
        ValueError: p below 1, infinite or not a number.
    """
    if not 1 <= p < math.inf:
        raise ValueError(
            f"p is {p}; it must be a finite number of at least 1 (1 is the average of |x|, max is p -> inf)"
        )


def check_first_exponent(p: float) -> None:
    """Refuse a p that learning cannot begin with.

    Raises:
        ValueError: p not above 1, infinite or not a number.
    """
    check_exponent(p)
    if p == 1:
        raise ValueError(f"p is {p}, which p = 1 + softplus(rho) does not reach: begin learning above it, say with 2")


def check_envelope(kernel: int, sigma: float) -> None:
    """Refuse an envelope that a window's border is outside of.

    Raises:
        ValueError: sigma below kernel / 8: a pixel whose weight vanishes could still be a window's maximum.
    """
    if not kernel / 8 <= sigma < math.inf:
        raise ValueError(
            f"sigma is {sigma} for {kernel} x {kernel} windows; the envelope's standard deviation must be at least "
            f"kernel / 8 = {kernel / 8:g} pixels: give a wider one or a smaller kernel"
        )


def _lp(windows: Tensor, weights: tuple[float, ...], stride: int, power: Power, root: Power) -> Tensor:
    """``m (sum w (x / m)^p)^(1/p)`` along x, then along y; the root is taken once, at the end."""
    kernel = len(weights)
    in_row = taps(windows, 3, kernel, stride)
    top = _maximum(in_row)
    mean = _weighted(weights, [power(tap / divisor(top)) for tap in in_row])
    tops = taps(top, 2, kernel, stride)
    highest = _maximum(tops)
    ratios = [power(tap / divisor(highest)) for tap in tops]
    means = taps(mean, 2, kernel, stride)
    mean = _weighted(weights, [ratio * part for ratio, part in zip(ratios, means, strict=True)])
    return highest * root(divisor(mean))


def _maximum(parts: list[Tensor]) -> Tensor:
    return reduce(torch.maximum, parts).detach()


def _weighted(weights: tuple[float, ...], parts: list[Tensor]) -> Tensor:
    return reduce(torch.add, [weight * part for weight, part in zip(weights, parts, strict=True)])


def _envelope(kernel: int, sigma: float | None) -> tuple[float, ...]:
    """Weights of a window along one axis, symmetric, sum 1."""
    if sigma is None:
        return (1 / kernel,) * kernel
    check_envelope(kernel, sigma)
    offset = np.arange(kernel) - (kernel - 1) / 2
    weights = np.exp(-(offset**2) / (2 * sigma**2))
    return tuple((weights / weights.sum()).tolist())


def _power(p: float | Tensor) -> Power:
    doublings = _doublings(p)
    if doublings is None:
        return lambda x: x**p

    def squared(x: Tensor) -> Tensor:
        for _ in range(doublings):
            x = x * x
        return x

    return squared


def _root(p: float | Tensor) -> Power:
    doublings = _doublings(p)
    if doublings is None:
        return lambda x: x ** (1 / p)

    def rooted(x: Tensor) -> Tensor:
        for _ in range(doublings):
            x = x.sqrt()
        return x

    return rooted


def _doublings(p: float | Tensor) -> int | None:
    """How often 1 is doubled to p, None for other p: products and square roots are much cheaper than powers."""
    if isinstance(p, Tensor):
        return None
    mantissa, exponent = math.frexp(p)
    return exponent - 1 if mantissa == 0.5 else None
