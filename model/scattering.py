"""Scattering: a cascade of fixed wavelets and moduli, averaged; nothing in it is learned.

    S0 = x * phi,    S1 = |x * psi_1| * phi,    S2 = ||x * psi_1| * psi_2| * phi

over all wavelets psi_1 of J scales and L orientations and all psi_2 of a coarser scale than psi_1; a finer one finds
next to nothing, and neither does a third modulus.  The filters are those of ``wavelets``.

Every convolution is one with a small filter in space, so that the cascade has a finite receptive field, tiles
exactly and exports as ordinary layers.  A map of scale j is kept on a grid of spacing min(2^j, stride), which is fine
enough for its frequencies, and filters between two grids are centred between pixels: the grids lie symmetrically in
the image, as those of 4x4 stride-2 padding-1 layers do.

Laws:

* ``S(L_g x) = L_g S(x)`` for the 8 elements of D4, exactly, on sides that are multiples of the stride; L_g turns
  the pixels and permutes the orientations (``Scattering2d.act``).
* ``|S x - S y| <= |x - y|``, and so ``|S x| <= |x|``: the wavelets are scaled down where their energies and the
  low-pass's would sum to more than 1 at some frequency (``Scattering2d.gain``, 1 for J <= 2 and L >= 4).  Only for
  images extended by zeros: reflected pixels count twice.

Source: the pooling-and-invariance review, section 3.3; Bruna and Mallat 2013, "Invariant scattering convolution
networks", sections 2 (cascade) and 3 (contraction, energies).  The kymatio library computes the same with
Fourier transforms of a fixed image size, which neither tile nor export as ordinary layers, and its release 0.3.0
cannot be imported beside SciPy 1.17 (its issue 1068); ``tests/model/test_scattering_reference.py`` compares the two.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from emboundary.model.group_conv import Fields, turn
from emboundary.model.groups import Group
from emboundary.model.wavelets import littlewood_paley, low_pass, morlet_bank, turned

Path = tuple[tuple[int, int], ...]
Padding = Literal["zero", "reflect"]

# Squared moduli below it count as 0: the root's slope stays finite, and its square a normal number in float32.
_LEAST = 1e-30


class Scattering2d(nn.Module):
    """Scattering coefficients up to an order, averaged by the low-pass and sampled every ``stride`` pixels.

    Shapes: (N, C, H, W) -> (N, C * K, H // stride, W // stride), channel of input channel c and path k: c K + k.
    K, the number of paths, is 1 + L J for order 1 and 1 + L J + L^2 J (J - 1) / 2 for order 2.

    Attributes:
        paths: of every coefficient the (scale, orientation) of its wavelets in the order they are applied: the
            average first, then order 1 by (j, l), then order 2 by (j1, j2, l1, l2).
        gain: factor of the wavelets that makes the cascade a contraction; 1 leaves them as they were published.

    Args:
        channels: C, of the image; each is scattered by itself.
        scales: J.
        angles: L, even, so that quarter turns permute the orientations.
        order: 1 or 2.
        stride: a power of two up to 2^J, by default 2^J; 1 keeps the image's size.
        padding: ``zero`` extends the image by zeros; ``reflect`` first by 2^J reflected pixels on each side, against
            the edges that zeros make in an image whose background is not 0.

    Raises:
        ValueError: an argument that is out of its range, or an image that does not fit (other channels, or sides too
            small to be reflected).
    """

    def __init__(
        self,
        channels: int,
        scales: int,
        angles: int,
        order: int = 2,
        *,
        stride: int | None = None,
        padding: Padding = "zero",
    ) -> None:
        super().__init__()
        if stride is None:
            stride = 2 ** max(scales, 0)
        _check(channels, scales, angles, order, stride, padding)
        self.channels, self.scales, self.angles, self.order = channels, scales, angles, order
        self.stride, self.padding = stride, padding
        self.paths = _paths(scales, angles, order)
        self.gain = _contracting_gain(scales, angles, stride)
        for level in {self._level(j) for j in range(scales)} | {0}:
            self._keep(f"_low_pass_{level}", low_pass(scales - level, stride >> level))
        for start, j in sorted({(0, j) for j in range(scales)} | {(self._level(i), j) for i, j in self._pairs()}):
            bank = self.gain * morlet_bank(j - start, angles, 1 << (self._level(j) - start))
            self._keep(f"_bank_{start}_{j}", np.concatenate([bank.real, bank.imag])[:, None])  # (2 L, 1, k, k)

    def _keep(self, name: str, values: NDArray[np.float64]) -> None:
        self.register_buffer(name, torch.as_tensor(values, dtype=torch.get_default_dtype()), persistent=False)

    def _level(self, scale: int) -> int:
        """Level of the maps of a scale; their pixels are 2^level of the image's apart."""
        return min(scale, self.stride.bit_length() - 1)

    def _pairs(self) -> list[tuple[int, int]]:
        return _pairs(self.scales) if self.order == 2 else []

    @property
    def coefficients(self) -> int:
        """K, the number of coefficients of one channel."""
        return len(self.paths)

    @property
    def radius(self) -> int:
        """Distance in pixels from an output pixel's centre to the farthest image pixel behind it, rounded up."""
        reach = 0.0
        for chain in [*((j,) for j in range(self.scales)), *self._pairs()]:
            level, here = 0, 0.0
            for j in chain:
                here += (self._bank(level, j).shape[-1] - 1) / 2 * 2**level
                level = self._level(j)
            reach = max(reach, here + (len(self._low_pass(level)) - 1) / 2 * 2**level)
        return math.ceil(reach)

    def _bank(self, level: int, scale: int) -> Tensor:
        return self.get_buffer(f"_bank_{level}_{scale}")

    def _low_pass(self, level: int) -> Tensor:
        return self.get_buffer(f"_low_pass_{level}")

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] != self.channels:
            raise ValueError(f"x has {x.shape[1]} channels; this scattering was made for channels={self.channels}")
        margin = 0
        if self.padding == "reflect":
            margin = 2**self.scales
            if min(x.shape[-2:]) <= margin:
                raise ValueError(
                    f"x is {x.shape[-2]} x {x.shape[-1]}; to be reflected by 2^scales = {margin} pixels its sides must "
                    'be larger than that; take fewer scales or padding="zero"'
                )
            x = F.pad(x, (margin,) * 4, mode="reflect")
        y = torch.cat([self._scatter(x[:, c : c + 1]) for c in range(self.channels)], dim=1)
        crop = margin // self.stride
        return y[..., crop : y.shape[-2] - crop, crop : y.shape[-1] - crop] if crop else y

    def _scatter(self, x: Tensor) -> Tensor:
        """(N, 1, H, W) -> (N, K, H // stride, W // stride)."""
        first = [self._moduli(x, 0, j) for j in range(self.scales)]
        out = [self._average(x, 0), *(self._average(u, self._level(j)) for j, u in enumerate(first))]
        for i, j in self._pairs():
            second = self._moduli(first[i], self._level(i), j)
            out.append(self._average(second, self._level(j)))
        return torch.cat(out, dim=1)

    def _moduli(self, x: Tensor, level: int, scale: int) -> Tensor:
        """|x * psi| of every map for every orientation, (N, M, h, w) -> (N, M L, h', w')."""
        bank = self._bank(level, scale)
        stride = 1 << (self._level(scale) - level)
        squares = []
        # Map by map: one small bank for all of them, and faster on a CPU than a convolution of M groups.
        for m in range(x.shape[1]):
            parts = F.conv2d(x[:, m : m + 1], bank, stride=stride, padding=(bank.shape[-1] - stride) // 2)
            parts = parts * parts
            squares.append(parts[:, : self.angles] + parts[:, self.angles :])
        return torch.cat(squares, dim=1).clamp(min=_LEAST).sqrt()

    def _average(self, x: Tensor, level: int) -> Tensor:
        """Low-pass and sample: down the columns, then along the rows."""
        low, stride = self._low_pass(level), self.stride >> level
        maps, size = x.shape[1], low.shape[0]
        padding = (size - stride) // 2
        column, row = low.view(1, 1, size, 1).expand(maps, 1, size, 1), low.expand(maps, 1, 1, size)
        x = F.conv2d(x, column, stride=(stride, 1), padding=(padding, 0), groups=maps)
        return F.conv2d(x, row, stride=(1, stride), padding=(0, padding), groups=maps)

    def act(self, element: int, y: Tensor) -> Tensor:
        """``L_g y`` for a D4 element: turn the pixels of an output, (N, C K, H, W), and permute its orientations."""
        source = torch.as_tensor(np.argsort(self.permutation(element)), device=y.device)
        return torch.unflatten(turn(element, y), 1, (self.channels, -1)).index_select(2, source).flatten(1, 2)

    def permutation(self, element: int) -> NDArray[np.int64]:
        """Where a D4 element moves each coefficient: that of path k to path ``permutation[k]``; shape (K,)."""
        place = {path: k for k, path in enumerate(self.paths)}
        moved = [tuple((j, turned(element, o, self.angles)) for j, o in path) for path in self.paths]
        return np.array([place[path] for path in moved], dtype=np.int64)


class OrientationFields(nn.Module):
    """A scattering's output as a feature map of a group, for a group convolution to continue with.

    Rotations and mirrors permute the coefficients in orbits of 1, 2 or 4 (the half turn moves none).  A coefficient
    that the whole group leaves is a trivial field; every other orbit becomes a regular field, its channel h the
    coefficient that element h makes of the orbit's first, which repeats each as often as it has stabilisers.

    Shapes: (N, C K, H, W) -> (N, fields.channels(group), H, W).

    Attributes:
        fields: of the output.

    Source: Cohen and Welling 2016, section 6.3: a map on a coset space G/H is a map on G that is constant on cosets.
    """

    def __init__(self, scattering: Scattering2d, group: Group) -> None:
        super().__init__()
        # (|G|, K): what each element makes of each coefficient
        moves = np.stack([scattering.permutation(element) for element in group.elements])
        first = [k for k in range(scattering.coefficients) if k == moves[:, k].min()]
        still = [k for k in first if (moves[:, k] == k).all()]
        orbits = moves[:, [k for k in first if k not in still]].T  # (orbits, |G|)
        self.fields = Fields(regular=len(orbits) * scattering.channels, trivial=len(still) * scattering.channels)
        starts = np.arange(scattering.channels)[:, None] * scattering.coefficients
        index = np.concatenate([(starts + chosen).ravel() for chosen in (orbits.ravel(), np.array(still, np.int64))])
        self.register_buffer("_index", torch.as_tensor(index), persistent=False)
        self._index: Tensor

    def forward(self, y: Tensor) -> Tensor:
        return y.index_select(1, self._index)


class InvariantScattering(nn.Module):
    """Means of a scattering's coefficients over all joint turns and mirrors of their orientations.

    Of order 1 one mean is left per scale, of order 2 one per pair of scales and difference of orientations up to its
    sign: K' = 1 + J + (L / 2 + 1) J (J - 1) / 2.  The maps are invariant to D4, exactly, and to other angles as far
    as L orientations sample the half turn.

    Shapes: (N, C K, H, W) -> (N, C K', H, W), all trivial fields.

    Source: the pooling-and-invariance review, section 3.6; Sifre and Mallat 2013, "Rotation, scaling and deformation
    invariant scattering" (joint invariants keep the differences of orientations).
    """

    def __init__(self, scattering: Scattering2d) -> None:
        super().__init__()
        kinds: dict[tuple[object, ...], list[int]] = {}
        for k, path in enumerate(scattering.paths):
            apart = (path[1][1] - path[0][1]) % scattering.angles if len(path) == 2 else 0
            kinds.setdefault((tuple(j for j, _ in path), min(apart, -apart % scattering.angles)), []).append(k)
        self.channels = scattering.channels
        weight = torch.zeros(len(kinds), scattering.coefficients, 1, 1)
        for row, members in zip(weight, kinds.values(), strict=True):
            row[members] = 1 / len(members)
        self.register_buffer("_weight", weight.repeat(scattering.channels, 1, 1, 1), persistent=False)
        self._weight: Tensor

    def forward(self, y: Tensor) -> Tensor:
        return F.conv2d(y, self._weight, groups=self.channels)


def _pairs(scales: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(scales) for j in range(i + 1, scales)]


def _paths(scales: int, angles: int, order: int) -> tuple[Path, ...]:
    single = [((j, o),) for j in range(scales) for o in range(angles)]
    double = [((i, k), (j, o)) for i, j in _pairs(scales) for k in range(angles) for o in range(angles)]
    return ((), *single, *(double if order == 2 else ()))


@lru_cache(maxsize=64)
def _contracting_gain(scales: int, angles: int, stride: int) -> float:
    """Largest a <= 1 with ``|phi^|^2 + a^2 sum |psi^|^2 <= 1`` at all frequencies, on every grid of the cascade."""
    least = 1.0
    top = stride.bit_length() - 1
    # what is filtered: the image by all wavelets, then the maps of each scale by the coarser ones
    for start, scale in [(0, 0), *((min(j, top), j + 1) for j in range(scales - 1))]:
        banks = [morlet_bank(j - start, angles, 1 << (min(j, top) - start)) for j in range(scale, scales)]
        side = 4 * max(bank.shape[-1] for bank in banks)  # four times as fine as the filters can change
        low, passed = littlewood_paley(low_pass(scales - start, stride >> start), banks, side)
        seen = passed > 1e-9
        least = min(least, float(((1 - low[seen]) / passed[seen]).min()))
    return math.sqrt(least)


def _check(channels: int, scales: int, angles: int, order: int, stride: int, padding: str) -> None:
    if channels < 1:
        raise ValueError(f"channels is {channels}; an image has at least 1")
    if scales < 1:
        raise ValueError(f"scales is {scales}; a scattering needs at least 1")
    if angles < 2 or angles % 2:
        raise ValueError(
            f"angles is {angles}; it must be even and at least 2, so that quarter turns permute the angles"
        )
    if order not in (1, 2):
        raise ValueError(f"order is {order}; it must be 1 or 2 (a third modulus finds next to no energy)")
    if stride < 1 or stride & (stride - 1) or stride > 2**scales:
        raise ValueError(f"stride is {stride}; it must be a power of two from 1 to 2^scales = {2**scales}")
    if padding not in get_args(Padding):
        raise ValueError(f"padding is {padding!r}; it must be one of {', '.join(get_args(Padding))}")
