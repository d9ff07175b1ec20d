"""How stable a network is, measured: its local expansion, and curves against deformations and against noise.

A map of images is stable to deformations if ``|f(x_t) - f(x)| <= C |grad t|`` for x_t(u) = x(u - t(u)): it changes by
no more than in proportion to how much the displacement differs from a shift.  The curves show the left side, relative
to ``|f(x)|``, for smooth random t of several sizes ``max_u |grad t(u)|`` (the spectral norm of the 2 x 2 matrix).

Where the output has pixels, what should be compared with f(x_t) is f(x) deformed in the same way; then the difference
is what the network does beyond moving along.

Source: Mallat 2012, "Group invariant scattering", theorem 2.12; review of pooling and invariance, sections 3.2 to 3.4.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor
from torch.nn import functional as F

from emboundary.model.resampling import displaced

Module = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class StabilityPoint:
    """What a perturbation of one size does; means over draws.

    Attributes:
        size: ``max |grad t|`` of the deformation, or the standard deviation of the noise.
        input_change: ``|x' - x| / |x|``.
        output_change: ``|f(x') - f(x)| / |f(x)|``; ``largest`` is that of the worst draw.
        beyond_moving: ``|f(x_t) - f(x)_t| / |f(x)|``; None for noise and for outputs without the input's pixels.
    """

    size: float
    input_change: float
    output_change: float
    largest: float
    beyond_moving: float | None = None


@dataclass(frozen=True)
class StabilityCurve:
    """Points in the order of the sizes that were asked for; ``kind`` is ``deformation`` or ``noise``."""

    kind: str
    points: tuple[StabilityPoint, ...]


def deformation_curve(
    module: Module,
    x: Tensor,
    sizes: Sequence[float] = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4),
    *,
    smoothness: float = 8.0,
    draws: int = 4,
    seed: int = 0,
) -> StabilityCurve:
    """Deform images (N, C, H, W) smoothly, by the same ``draws`` random fields for every size.

    ``smoothness``: standard deviation, in pixels, of the Gaussian that the fields are smoothed with.

    Raises:
        ValueError: no size, one that is not above 0 and below 1 (where a deformation may fold the image), no draw, a
            smoothness not above 0, or images of which module makes nothing but zeros.
    """
    if bad := [size for size in sizes if not 0 < size < 1]:
        raise ValueError(f"sizes has {bad[0]}; max |grad t| must be above 0 and below 1, or the image may fold")
    fields = [displacement(x, smoothness, seed + draw) for draw in range(draws)]
    return _curve("deformation", module, x, sizes, draws, lambda draw, size, y: displaced(y, size * fields[draw]))


def noise_curve(
    module: Module, x: Tensor, levels: Sequence[float] = (0.01, 0.03, 0.1, 0.3, 1.0), *, draws: int = 4, seed: int = 0
) -> StabilityCurve:
    """Add normal noise of several standard deviations, in units of x, to images (N, C, H, W); the same draws for all.

    Raises:
        ValueError: no level, one that is not above 0, no draw, or images of which module makes nothing but zeros.
    """
    if bad := [level for level in levels if not level > 0]:
        raise ValueError(f"levels has {bad[0]}; a standard deviation of noise must be above 0")
    noises = [_normal(x.shape, seed + draw).to(x) for draw in range(draws)]
    return _curve("noise", module, x, levels, draws, lambda draw, level, y: y + level * noises[draw])


def _curve(
    kind: str,
    module: Module,
    x: Tensor,
    sizes: Sequence[float],
    draws: int,
    perturbed: Callable[[int, float, Tensor], Tensor],
) -> StabilityCurve:
    if not sizes or draws < 1:
        raise ValueError(f"sizes are {tuple(sizes)}, draws {draws}; a curve needs at least one of each")
    with torch.no_grad():
        upright = module(x)
        if not upright.any():
            raise ValueError("module gives nothing but zeros for x; changes are relative to its output: give other x")
        moves = kind == "deformation" and upright.shape[2:] == x.shape[2:]
        points = []
        for size in sizes:
            inputs, outputs, beyond = [], [], []
            for draw in range(draws):
                changed = perturbed(draw, size, x)
                y = module(changed)
                inputs.append(_relative(changed, x))
                outputs.append(_relative(y, upright))
                if moves:
                    beyond.append(float((y - perturbed(draw, size, upright)).norm() / upright.norm()))
            mean = fmean(beyond) if moves else None
            points.append(StabilityPoint(size, fmean(inputs), fmean(outputs), max(outputs), mean))
    return StabilityCurve(kind, tuple(points))


def _relative(changed: Tensor, x: Tensor) -> float:
    return float((changed - x).norm() / x.norm())


def displacement(like: Tensor, smoothness: float, seed: int) -> Tensor:
    """A smooth random field t in pixels for images (..., H, W), with ``max |grad t| = 1``; shape (2, H, W), float64.

    Raises:
        ValueError: a smoothness not above 0, or an image with a side below 2.
    """
    if not smoothness > 0:
        raise ValueError(f"smoothness is {smoothness}; the Gaussian's standard deviation must be above 0 pixels")
    height, width = like.shape[-2:]
    if min(height, width) < 2:
        raise ValueError(f"x has sides {height} and {width}; a displacement needs at least 2 to have a gradient")
    radius = math.ceil(3 * smoothness)
    window = torch.exp(-(torch.arange(-radius, radius + 1, dtype=torch.float64) ** 2) / (2 * smoothness**2))
    field = _normal((2, 1, height + 2 * radius, width + 2 * radius), seed)
    field = F.conv2d(F.conv2d(field, window[None, None, :, None]), window[None, None, None, :])[:, 0]
    jacobian = torch.stack(torch.gradient(field, dim=(1, 2)), dim=-1)  # (2, H, W, 2)
    steepest: Tensor = torch.linalg.matrix_norm(jacobian.movedim(0, -2), ord=2).max()
    return field / steepest


def _normal(shape: Sequence[int], seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def lipschitz_estimate(module: Module, x: Tensor, *, steps: int = 20, seed: int = 0) -> float:
    """Largest expansion ``|J v| / |v|`` that was found at images (N, C, H, W), J the derivative at an image.

    A power iteration on ``J^T J`` of every image; no Lipschitz constant of ``module`` is smaller.  ``module`` must map
    each image by itself, as networks in evaluation mode do.

    Raises:
        ValueError: fewer than one step.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}; the search needs at least one")
    x = x.detach().requires_grad_()
    v = _each_of_length_one(_normal(x.shape, seed).to(x))
    with torch.enable_grad():
        y = module(x)
        # J^T u is linear in u, so that its own derivative along v is J v.
        u = torch.zeros_like(y, requires_grad=True)
        (pulled,) = torch.autograd.grad(y, x, u, create_graph=True)
        found = torch.zeros(len(x), dtype=x.dtype, device=x.device)
        for _ in range(steps):
            (pushed,) = torch.autograd.grad(pulled, u, v, retain_graph=True)
            found = torch.maximum(found, pushed.flatten(1).norm(dim=1))
            (back,) = torch.autograd.grad(y, x, pushed, retain_graph=True)
            v = _each_of_length_one(back)
    return float(found.max())


def _each_of_length_one(v: Tensor) -> Tensor:
    return F.normalize(v.flatten(1), dim=1).reshape(v.shape)
