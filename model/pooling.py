"""Pooling over windows of pixels, by one regime or several, over whole maps, and over channels.

    kind           of a window                                       sign of x
    max            max x                                             kept
    average        mean x                                            kept
    lp             (mean |x|^p)^(1/p), p fixed                       lost: at least 0
    learned-lp     the same, one p >= 1 learned for every field      lost: at least 0
    gaussian-lp    (sum w |x|^p)^(1/p), w Gaussian, windows overlap  lost: at least 0
    stochastic     a pixel drawn by |x|; evaluation: sum x|x| / sum |x|     kept
    entropy        max^2 |x| / mean |x|                              lost: at least 0
    heterogeneous  some fields by one regime, some by another        as the regimes
    side-by-side   all fields by every regime, joined                as the regimes

A window of zeros gives 0.  Every pooling works on each channel by itself, with windows that the elements of D4 leave
alone, so that ``pool(L_g x) = L_g pool(x)`` for any group and any fields, where (side + 2 padding - kernel) mod
stride = 0; elsewhere the grid does not map onto itself and the law fails.  Padding is of zeros, which count in means
and never are the maximum.

Source: Pooling and invariance review, sections 2.2 to 2.7; that pooling commutes with the group: Cohen and Welling
2016, section 6.3 and equation 16.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from functools import reduce
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from emboundary.model.group_conv import Fields
from emboundary.model.groups import Group
from emboundary.model.pooling_lp import LearnedLpPool2d, LpPool2d, check_envelope, check_exponent, check_first_exponent
from emboundary.model.pooling_responses import EntropyPool2d, StochasticPool2d

Regime = Literal["max", "average", "lp", "learned-lp", "gaussian-lp", "stochastic", "entropy"]
Kind = Literal[Regime, "heterogeneous", "side-by-side"]


@dataclass(frozen=True)
class PoolSpec:
    """How maps are pooled.

    Attributes:
        kind: see the table at the head of the module.
        kernel, stride, padding: the windows; ``gaussian-lp`` needs kernel > stride.
        p: exponent of ``lp`` and ``gaussian-lp``, and the one that ``learned-lp`` begins with.
        sigma: standard deviation of ``gaussian-lp``'s envelope in pixels; None: kernel / 4.
        regimes: of ``heterogeneous`` and ``side-by-side``.

    Raises:
        ValueError: a kind or regime that is not known, windows that are none, a p that is not of the kind, a narrow
            envelope or windows that do not overlap for it, or fewer than two regimes.
    """

    kind: Kind = "max"
    kernel: int = 2
    stride: int = 2
    padding: int = 0
    p: float = 4.0
    sigma: float | None = None
    regimes: tuple[Regime, ...] = ("max", "average")

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise ValueError(f"kind is {self.kind!r}; a pooling is one of {', '.join(_KINDS)}")
        for name in ("kernel", "stride"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; windows need at least 1")
        if not 0 <= 2 * self.padding <= self.kernel:
            raise ValueError(
                f"padding is {self.padding} for a kernel of {self.kernel}; it must be 0 to half the kernel, so that "
                "every window holds pixels of the image"
            )
        check_exponent(self.p)
        if self.kind == "learned-lp":
            check_first_exponent(self.p)
        if self.kind == "gaussian-lp":
            self._check_overlap()
        if self.kind in _SEVERAL:
            self._check_regimes()

    @property
    def envelope(self) -> float:
        """Standard deviation of ``gaussian-lp``'s envelope in pixels."""
        return self.kernel / 4 if self.sigma is None else self.sigma

    def _check_overlap(self) -> None:
        check_envelope(self.kernel, self.envelope)
        if self.kernel <= self.stride:
            raise ValueError(
                f"kernel is {self.kernel} with stride {self.stride}; gaussian-lp is for windows that overlap: give a "
                "kernel above the stride, twice it say, or take lp"
            )

    def _check_regimes(self) -> None:
        if len(self.regimes) < 2:
            raise ValueError(f"regimes are {self.regimes}; {self.kind} pooling needs at least two")
        for regime in self.regimes:
            if regime not in get_args(Regime):
                raise ValueError(f"regimes hold {regime!r}; each is one of {', '.join(get_args(Regime))}")
            replace(self, kind=regime)  # refuses windows that are not for this regime


class Pooling(nn.Module):
    """Pooling of a map of fields.

    Attributes:
        fields: of the map that comes out.
    """

    def __init__(self, fields: Fields) -> None:
        super().__init__()
        self.fields = fields

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, ``fields.channels(group)``, H', W')."""


def make_pool(spec: PoolSpec, fields: Fields, group: Group) -> Pooling:
    """The pooling of a spec for maps of the given fields over a group.

    Raises:
        ValueError: no field, or fewer fields than ``heterogeneous`` has regimes.
    """
    if fields.regular + fields.trivial < 1:
        raise ValueError(f"fields are {fields}; a pooling needs at least one")
    if spec.kind == "heterogeneous":
        return HeterogeneousPool(spec, fields, group)
    if spec.kind == "side-by-side":
        return SideBySidePool(spec, fields, group)
    return RegimePool(spec, fields, group)


class RegimePool(Pooling):
    """All fields by one regime."""

    def __init__(self, spec: PoolSpec, fields: Fields, group: Group) -> None:
        super().__init__(fields)
        self.pool = _regime(spec, fields, group)

    def forward(self, x: Tensor) -> Tensor:
        pooled: Tensor = self.pool(x)
        return pooled


class HeterogeneousPool(Pooling):
    """Some fields by one regime, the others by the next.

    Fields are dealt in runs, the first regime's first, regular and trivial ones apart, an orbit never divided.  If
    the number of fields is no multiple of that of regimes, the first regimes have one more: of 5 fields, 3 by the
    maximum and 2 by the average.

    Source: Pooling and invariance review, section 2.3.
    """

    def __init__(self, spec: PoolSpec, fields: Fields, group: Group) -> None:
        super().__init__(fields)
        count = len(spec.regimes)
        regular, trivial = _dealt(fields.regular, count), _dealt(fields.trivial, count)
        if 0 in [a + b for a, b in zip(regular, trivial, strict=True)]:
            raise ValueError(
                f"regimes are {spec.regimes} for {fields}; heterogeneous pooling needs a field for each: give more "
                "fields or fewer regimes"
            )
        parts = [(Fields(regular=number), regime) for number, regime in zip(regular, spec.regimes, strict=True)]
        parts += [(Fields(trivial=number), regime) for number, regime in zip(trivial, spec.regimes, strict=True)]
        parts = [(part, regime) for part, regime in parts if part != Fields()]
        self.channels = tuple(part.channels(group) for part, _ in parts)
        self.pools = nn.ModuleList(RegimePool(replace(spec, kind=regime), part, group) for part, regime in parts)

    def forward(self, x: Tensor) -> Tensor:
        pooled, start = [], 0
        for channels, pool in zip(self.channels, self.pools, strict=True):
            pooled.append(pool(x[:, start : start + channels]))
            start += channels
        return torch.cat(pooled, dim=1)


class SideBySidePool(Pooling):
    """All fields by every regime, joined: as many times the fields as there are regimes.

    Of the regular fields those of the first regime come first, then those of the second, and so on; the trivial ones
    follow in the same order.

    Source: Pooling and invariance review, section 2.3 ("each set of responses to a suite of pooling regimes").
    """

    def __init__(self, spec: PoolSpec, fields: Fields, group: Group) -> None:
        count = len(spec.regimes)
        super().__init__(Fields(count * fields.regular, count * fields.trivial))
        self.regular = fields.regular * group.order
        self.mixed = fields.regular > 0 and fields.trivial > 0
        self.pools = nn.ModuleList(RegimePool(replace(spec, kind=regime), fields, group) for regime in spec.regimes)

    def forward(self, x: Tensor) -> Tensor:
        pooled = [pool(x) for pool in self.pools]
        if self.mixed:
            pooled = [part[:, : self.regular] for part in pooled] + [part[:, self.regular :] for part in pooled]
        return torch.cat(pooled, dim=1)


class MaxoutChannels(nn.Module):
    """Maxout over maps: ``y_j = max_i x_(i C / pieces + j)``, i = 0..pieces - 1.

    The maps that are compared are C / pieces apart, so that on regular fields, whose number ``pieces`` divides, each
    element of an orbit is compared with the same element of the others.

    Law: ``layer(L_g x) = L_g layer(x)`` on maps of regular fields alone, or of trivial fields alone, if ``pieces``
    divides their number.  Where it divides the channels but not the fields the law fails.

    Shapes: (N, C, H, W) -> (N, C / pieces, H, W).

    Raises:
        ValueError: fewer than 2 pieces, or channels that they do not divide.

    Source: Pooling and invariance review, section 2.6; Goodfellow et al. 2013, "Maxout networks".
    """

    def __init__(self, pieces: int) -> None:
        super().__init__()
        if pieces < 2:
            raise ValueError(f"pieces is {pieces}; a maximum is over at least 2")
        self.pieces = pieces

    def forward(self, x: Tensor) -> Tensor:
        channels, rest = divmod(x.shape[1], self.pieces)
        if rest:
            raise ValueError(
                f"pieces is {self.pieces} for {x.shape[1]} channels, which it does not divide; give a multiple of "
                f"{self.pieces} channels"
            )
        parts = [x[:, i * channels : (i + 1) * channels] for i in range(self.pieces)]
        return reduce(torch.maximum, parts)


class GlobalAverage(nn.Module):
    """Average over all pixels: ``y_c = mean_u x_c(u)``; invariant on trivial fields, and G permutes regular ones.

    Law: ``layer(L_g x)_c = layer(x)_(g^-1 c)``, for sides of any length.

    Shapes: (N, C, H, W) -> (N, C).  Source: Pooling and invariance review, section 2.7.
    """

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))


class GlobalMax(nn.Module):
    """Maximum over all pixels: ``y_c = max_u x_c(u)``; invariant on trivial fields, and G permutes regular ones.

    Law: ``layer(L_g x)_c = layer(x)_(g^-1 c)``, for sides of any length.

    Shapes: (N, C, H, W) -> (N, C).  Source: Pooling and invariance review, section 2.7.
    """

    def forward(self, x: Tensor) -> Tensor:
        return x.amax(dim=(2, 3))


_SEVERAL = ("heterogeneous", "side-by-side")
_KINDS = (*get_args(Regime), *_SEVERAL)


def _regime(spec: PoolSpec, fields: Fields, group: Group) -> nn.Module:
    kernel, stride, padding = spec.kernel, spec.stride, spec.padding
    match spec.kind:
        case "max":
            return nn.MaxPool2d(kernel, stride, padding)
        case "average":
            return nn.AvgPool2d(kernel, stride, padding)
        case "lp":
            return LpPool2d(kernel, stride, p=spec.p, padding=padding)
        case "gaussian-lp":
            return LpPool2d(kernel, stride, p=spec.p, padding=padding, sigma=spec.envelope)
        case "learned-lp":
            return LearnedLpPool2d(group, fields, kernel, stride, p=spec.p, padding=padding)
        case "stochastic":
            return StochasticPool2d(kernel, stride, padding=padding)
        case _:
            return EntropyPool2d(kernel, stride, padding=padding)


def _dealt(fields: int, regimes: int) -> list[int]:
    """How many of a number of fields each regime has."""
    return [fields // regimes + (place < fields % regimes) for place in range(regimes)]
