"""Largest singular value of a linear map that is given as a function, such as a convolution of a certain image size.

The map itself is measured, with its padding and stride, rather than the matrix that a kernel's entries can be reshaped
to, whose norm is another number.  With A the map, the Lanczos method finds the largest eigenvalue t of A^T A in the
span of v, A^T A v, (A^T A)^2 v, ... of a random v; A^T comes from automatic differentiation.  Its residual r says how
far t can be from an eigenvalue, so that

    sqrt(t) <= |A|,   and once the largest eigenvalue is the one found   |A| <= sqrt(t + r).

Source: Golub and Van Loan, "Matrix computations", section 10.1; the norms of a network's layers as a measure of how
much it can expand: Szegedy et al. 2014, "Intriguing properties of neural networks", section 4.3, to which the review
of pooling and invariance refers in section 3.2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Linear = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class SpectralNorm:
    """A largest singular value from below, and from above once the method has converged: where the two are close."""

    lower: float
    upper: float


def spectral_norm(
    linear: Linear, like: Tensor, *, tolerance: float = 1e-4, steps: int = 40, restarts: int = 8, seed: int = 0
) -> SpectralNorm:
    """Largest singular value of ``linear``, a function of tensors shaped and typed ``like`` this one.

    It stops when upper and lower differ by less than ``tolerance`` of the value, or after ``restarts`` times
    ``steps`` applications of the map and of its transpose; then ``upper`` says how far it came.

    Raises:
        ValueError: an empty ``like``, a tolerance that is not above 0, or fewer than two steps or one restart.
    """
    for name, value, least in (("like.numel()", like.numel(), 1), ("steps", steps, 2), ("restarts", restarts, 1)):
        if value < least:
            raise ValueError(f"{name} is {value}; a spectral norm needs at least {least}")
    if not tolerance > 0:
        raise ValueError(f"tolerance is {tolerance}; it must be above 0, rounding alone needs about 1e-7")
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like)
    found = SpectralNorm(0.0, 0.0)
    for _ in range(restarts):
        found, start = _lanczos(linear, start, steps, tolerance)
        if found.upper - found.lower <= tolerance * found.lower:
            break
    return found


def _lanczos(linear: Linear, start: Tensor, steps: int, tolerance: float) -> tuple[SpectralNorm, Tensor]:
    """The norm as a Krylov space knows it, and the vector that belongs to it, with which to start again."""
    basis = [start / start.norm()]
    diagonal: list[float] = []
    beside: list[float] = []
    steps = min(steps, start.numel())
    while True:
        v = gram(linear, basis[-1])
        diagonal.append(float(v.flatten() @ basis[-1].flatten()))
        known = torch.stack([b.flatten() for b in basis])
        for _ in range(2):  # once is not enough against rounding
            v = v - (known.T @ (known @ v.flatten())).reshape(v.shape)
        length = float(v.norm())
        beside.append(length)
        exhausted = length <= 1e-12 * max(diagonal[0], 1e-300)
        if exhausted or len(diagonal) == steps or len(diagonal) % 8 == 0:
            found, weights = _largest(diagonal, beside)
            if exhausted or len(diagonal) == steps or found.upper - found.lower <= tolerance * found.lower:
                return found, (weights.to(known) @ known).reshape(start.shape)
        basis.append(v / length)


def _largest(diagonal: list[float], beside: list[float]) -> tuple[SpectralNorm, Tensor]:
    """From the map's tridiagonal matrix in the Krylov space: the norm, and its vector's coordinates."""
    off = torch.tensor(beside[:-1], dtype=torch.float64)
    matrix = torch.diag(torch.tensor(diagonal, dtype=torch.float64)) + torch.diag(off, 1) + torch.diag(off, -1)
    values, vectors = torch.linalg.eigh(matrix)
    eigenvalue, residual = max(float(values[-1]), 0.0), beside[-1] * abs(float(vectors[-1, -1]))
    return SpectralNorm(eigenvalue**0.5, (eigenvalue + residual) ** 0.5), vectors[:, -1]


def gram(linear: Linear, x: Tensor) -> Tensor:
    """``A^T A x``."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(linear(x).square().sum() / 2, x)
    return gradient
