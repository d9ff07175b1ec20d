"""How much a network can expand: a bound on its Lipschitz constant, and what gradients show of it.

A constant L with ``|f(x) - f(y)| <= L |x - y|`` for all x and y, in the Euclidean norm, is composed of the layers':

    one behind the other   L1 L2        side by side, concatenated   sqrt(L1^2 + L2^2)        added   L1 + L2

A run of affine layers (convolution, batch norm in evaluation, average pooling) has the spectral norm of the whole run
at the image size that is asked for.  The maximum over windows, over channels or over an orbit has 1, times the square
root of the number of windows that an input is in; ReLU and the modulus have 1.  The bound is far above the truth for
deep networks, because each layer's worst direction is not the next one's; ``lipschitz_estimate`` comes from below.

Source: Szegedy et al. 2014, "Intriguing properties of neural networks", section 4.3; review of pooling and
invariance, sections 3.2 and 4.1.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial, singledispatch
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from emboundary.model.blocks import Inception, InvariantLogit, Reduction, Unit, Upsample
from emboundary.model.conv import KernelOrbitConv2d, OrbitMaxoutConv2d
from emboundary.model.coset import coset_max
from emboundary.model.inception import Segmenter
from emboundary.model.lipschitz_constants import constant, reflected
from emboundary.model.pooling import GlobalAverage, HeterogeneousPool, RegimePool, SideBySidePool
from emboundary.model.scattering import InvariantScattering, OrientationFields, Scattering2d
from emboundary.model.spectral import spectral_norm

__all__ = [
    "Expandable",
    "LipschitzBound",
    "Reached",
    "Stage",
    "Walk",
    "added",
    "concatenated",
    "constant",
    "is_affine",
    "linear_part",
    "lipschitz_bound",
    "through",
]


@dataclass(frozen=True)
class Stage:
    """One factor of a bound: the modules that it belongs to, and their constant."""

    name: str
    kind: str
    constant: float


@dataclass(frozen=True)
class LipschitzBound:
    """A bound for images of one size.

    Attributes:
        constant: no smaller than ``|f(x) - f(y)| / |x - y|`` for any two images.
        shape: (C, H, W) of the images.
        stages: every affine run, in the order of computation, with its spectral norm.
    """

    constant: float
    shape: tuple[int, ...]
    stages: tuple[Stage, ...]


@runtime_checkable
class Expandable(Protocol):
    """A convolution of this package: its filters can be written out, and itself as an ordinary one."""

    def expand(self) -> Tensor: ...

    def plain(self) -> nn.Conv2d | nn.ConvTranspose2d: ...


@dataclass(frozen=True)
class Reached:
    """A map inside a network: an example of it, and a Lipschitz constant of all that leads to it."""

    x: Tensor
    constant: float

    def then(self, function: Callable[[Tensor], Tensor], constant: float) -> Reached:
        """What a function with this constant makes of it."""
        with torch.no_grad():
            return Reached(function(self.x), self.constant * constant)


def concatenated(*maps: Reached) -> Reached:
    """Maps of one image, their channels side by side."""
    return Reached(torch.cat([m.x for m in maps], dim=1), math.hypot(*(m.constant for m in maps)))


def added(*maps: Reached) -> Reached:
    """The sum of maps of one image."""
    return Reached(torch.stack([m.x for m in maps]).sum(dim=0), math.fsum(m.constant for m in maps))


@dataclass
class Walk:
    """The way of an image through a network; it collects the stages."""

    stages: list[Stage] = field(default_factory=list)

    def __call__(self, name: str, module: nn.Module, at: Reached) -> Reached:
        """Through one module."""
        return self.sequence([(name, module)], at)

    def sequence(self, parts: Iterable[tuple[str, nn.Module]], at: Reached) -> Reached:
        """Through modules one behind the other; neighbouring affine ones are one map."""
        run: list[tuple[str, nn.Module]] = []
        for name, module in _flat(parts):
            if isinstance(module, nn.Identity | nn.Dropout | nn.Dropout2d):
                continue
            if is_affine(module):
                run.append((name, module))
            else:
                at, run = through(module, name, self._affine(run, at), self), []
        return self._affine(run, at)

    def _affine(self, run: list[tuple[str, nn.Module]], at: Reached) -> Reached:
        if not run:
            return at
        layers = nn.Sequential(*(module for _, module in run))
        with torch.no_grad():
            shift = layers(torch.zeros_like(at.x))
        constant = spectral_norm(lambda x: layers(x) - shift, at.x).upper
        self.stages.append(
            Stage(run[0][0].lstrip("."), " + ".join(type(module).__name__ for _, module in run), constant)
        )
        return at.then(layers, constant)


def _flat(parts: Iterable[tuple[str, nn.Module]]) -> Iterator[tuple[str, nn.Module]]:
    for name, module in parts:
        if isinstance(module, nn.Sequential):
            yield from _flat((f"{name}.{child}", part) for child, part in module.named_children())
        else:
            yield name, module


def is_affine(module: nn.Module) -> bool:
    """Whether a module is a linear map and a shift, in evaluation mode."""
    if isinstance(module, OrbitMaxoutConv2d):
        return module.combine == "concatenate"
    return isinstance(module, (*_AFFINE, Expandable))


def linear_part(conv: nn.Module, x: Tensor) -> Tensor:
    """A convolution without its bias and without what it does to its copies; differentiable in its parameters."""
    function = partial(KernelOrbitConv2d.forward, conv) if isinstance(conv, OrbitMaxoutConv2d) else conv
    y: Tensor = function(x)
    return y if getattr(conv, "bias", None) is None else y - function(torch.zeros_like(x))


_AFFINE = (
    nn.Conv2d,
    nn.ConvTranspose2d,
    nn.Linear,
    nn.BatchNorm2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.Flatten,
    GlobalAverage,
    InvariantScattering,
    OrientationFields,
)


@singledispatch
def through(module: nn.Module, name: str, at: Reached, _walk: Walk) -> Reached:
    """What a module makes of a map that was reached: its rule, one for each type of module.

    For a module of your own that consists of others write ``@through.register`` above a function with these
    arguments; ``walk(name, module, at)`` leads through one of those that it consists of, ``concatenated`` and
    ``added`` join branches, and ``Reached.then`` is for a function whose constant is known.

    Raises:
        TypeError: no rule for this type, and no constant.
    """
    known = constant(module)
    if known is None:
        raise TypeError(
            f"{name.lstrip('.') or 'net'} is a {type(module).__name__}, for which no Lipschitz constant is known; "
            "give it one with constant.register or a rule with through.register of emboundary.model.lipschitz"
        )
    return at.then(module, known)


@through.register
def _(module: RegimePool, name: str, at: Reached, walk: Walk) -> Reached:
    return walk(name, module.pool, at)


@through.register
def _(module: HeterogeneousPool, name: str, at: Reached, walk: Walk) -> Reached:
    parts = zip(module.pools, torch.split(at.x, list(module.channels), dim=1), strict=True)
    return at.then(module, max(walk(name, pool, Reached(part, 1.0)).constant for pool, part in parts))


@through.register
def _(module: SideBySidePool, name: str, at: Reached, walk: Walk) -> Reached:
    return at.then(module, math.hypot(*(walk(name, pool, Reached(at.x, 1.0)).constant for pool in module.pools)))


@through.register
def _(module: Scattering2d, _name: str, at: Reached, _walk: Walk) -> Reached:
    return at.then(module, reflected(module, at.x.shape[-2:]))


@through.register
def _(module: OrbitMaxoutConv2d, name: str, at: Reached, walk: Walk) -> Reached:
    return walk(name, module.plain().to(at.x), at).then(lambda maps: coset_max(maps, module.copies), 1.0)


@through.register
def _(module: Unit, name: str, at: Reached, walk: Walk) -> Reached:
    reached = walk.sequence([(f"{name}.conv", module.conv), (f"{name}.norm", module.norm)], at)
    return reached.then(lambda maps: coset_max(maps, module.maxout), 1.0).then(torch.relu, 1.0)


@through.register
def _(module: Inception, name: str, at: Reached, walk: Walk) -> Reached:
    mean = nn.AvgPool2d(3, stride=1, padding=1)
    # The mean and what follows it are affine up to the unit's norm, and so have a norm together.
    pooled = walk.sequence([(f"{name}.mean", mean), *_opened(f"{name}.branch_pool", module.branch_pool)], at)
    branches = [walk(f"{name}.branch_1x1", module.branch_1x1, at), walk(f"{name}.branch_3x3", module.branch_3x3, at)]
    branches.append(pooled.then(torch.relu, 1.0))
    if module.branch_5x5 is not None:
        branches.append(walk(f"{name}.branch_5x5", module.branch_5x5, at))
    return concatenated(*branches)


def _opened(name: str, unit: Unit) -> list[tuple[str, nn.Module]]:
    assert unit.maxout == 1
    return [(f"{name}.conv", unit.conv), (f"{name}.norm", unit.norm)]


@through.register
def _(module: Reduction, name: str, at: Reached, walk: Walk) -> Reached:
    return concatenated(walk(f"{name}.pool", module.pool, at), walk(f"{name}.strided", module.strided, at))


@through.register
def _(module: Upsample, name: str, at: Reached, walk: Walk) -> Reached:
    return walk.sequence([(f"{name}.point", module.point), (f"{name}.deconv", module.deconv)], at)


@through.register
def _(module: InvariantLogit, name: str, at: Reached, walk: Walk) -> Reached:
    largest = at.then(lambda maps: coset_max(maps, module.order), 1.0)
    logit = walk(f"{name}.of_max", module.of_max, largest)
    return logit if module.of_mean is None else added(logit, walk(f"{name}.of_mean", module.of_mean, at))


@through.register
def _(module: Segmenter, _name: str, at: Reached, walk: Walk) -> Reached:
    stem = module.stem
    trunk = walk.sequence([("stem.first", stem.first), ("stem.second", stem.second)], at)
    skip = trunk
    if stem.maxout in ("skip", "beside"):
        invariant = trunk.then(lambda maps: coset_max(maps, stem.order), 1.0)
        skip = invariant if stem.maxout == "skip" else concatenated(trunk, invariant)
    a = walk.sequence([("pool", module.pool), ("inception_a", module.inception_a)], trunk)
    b = walk.sequence([("reduction_a", module.reduction_a), ("inception_b", module.inception_b)], a)
    c = walk.sequence([("reduction_b", module.reduction_b), ("inception_c", module.inception_c)], b)
    joined = concatenated(
        walk("up_a", module.up_a, a), walk("up_b", module.up_b, b), walk("up_c", module.up_c, c), skip
    )
    return walk.sequence([("join", module.join), ("mix", module.mix), ("logit", module.logit)], joined)


def lipschitz_bound(net: nn.Module, shape: tuple[int, ...]) -> LipschitzBound:
    """Bound the Lipschitz constant of a network in evaluation mode, for images of one shape.

    Args:
        net: a chain (``nn.Sequential``) of known modules, a ``Segmenter`` or one of its parts, or anything that
            ``through`` has a rule for.  It stays as it is; float64 copies are computed with.
        shape: (C, H, W) of an image.

    Raises:
        TypeError: a module without a rule; names it.
    """
    copied = copy.deepcopy(net).cpu().double().eval().requires_grad_(False)
    walk = Walk()
    reached = walk("", copied, Reached(torch.zeros(1, *shape, dtype=torch.float64), 1.0))
    return LipschitzBound(reached.constant, tuple(shape), tuple(walk.stages))
