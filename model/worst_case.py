"""The rotation and the translation that change a network's output most.

For every image a grid of moves is tried, and then finer ones round the best: no gradient is needed, and there are few
moves enough to try (unlike perturbations of every pixel).  A map is moved back before it is compared with the upright
one, so that an equivariant network scores zero; class scores (N, C) are compared as they are.

Between pixels images are interpolated, which changes them too.  ``reference`` says by how much: it is the score of an
output that is only turned and turned back.

Source: Engstrom et al. 2019, "Exploring the landscape of spatial robustness"; review of pooling and invariance,
section 4.1: "run same adversarial paradigm to determine whether it is always possible to find rotations or
translations that result in" another class.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from emboundary.model.resampling import pixel_grid, rotated

Module = Callable[[Tensor], Tensor]
Shift = tuple[int, int]
Score = Callable[[Tensor, Tensor], Tensor]
"""``(output, upright output) -> how bad it is``, (N,); of maps, both are zero where they cannot be compared."""


@dataclass(frozen=True)
class WorstRotation:
    """The worst angle of every image, and the means over images at every angle of the grid.

    Attributes:
        degrees, scores, reference: one for each image; counter-clockwise.  ``reference`` is the score of the upright
            map turned by this angle and back; 0 for outputs without pixels.
        angles, mean_scores, mean_reference: of the grid.
    """

    degrees: tuple[float, ...]
    scores: tuple[float, ...]
    reference: tuple[float, ...]
    angles: tuple[float, ...]
    mean_scores: tuple[float, ...]
    mean_reference: tuple[float, ...]


@dataclass(frozen=True)
class WorstTranslation:
    """The worst shift (rows, columns) in whole pixels of every image, its score, and the scores of the grid.

    Attributes:
        shifts, scores: one for each image.
        grid: the shifts that were tried for all; ``mean_scores`` are the means over images.
    """

    shifts: tuple[Shift, ...]
    scores: tuple[float, ...]
    grid: tuple[Shift, ...]
    mean_scores: tuple[float, ...]


def relative_change(output: Tensor, upright: Tensor) -> Tensor:
    """``|output - upright| / |upright|`` of every image, in the Euclidean norm; the default score."""
    found: Tensor = _lengths(output - upright) / _lengths(upright)
    return found


def _lengths(x: Tensor) -> Tensor:
    lengths: Tensor = torch.linalg.vector_norm(x.flatten(1), dim=1)
    return lengths


def worst_rotation(
    module: Module,
    x: Tensor,
    score: Score = relative_change,
    *,
    angles: int = 48,
    rounds: int = 3,
    margin: int = 0,
) -> WorstRotation:
    """Search the angle in [0, 360) that makes ``score`` largest, for each of the images (N, C, H, W).

    Args:
        module: maps images to maps of their size, or to (N, C).
        x: images.
        score: what is made as large as possible.
        angles: equal steps of the grid; a multiple of 4 has the quarter turns, where nothing is interpolated.
        rounds: of refinement, each halving the step round the best angle.
        margin: maps are compared in the largest disc in the image, made smaller by this many pixels; the reach of
            ``module`` keeps out what lies beyond the image's corners.

    Raises:
        ValueError: fewer than 4 angles, rounds below 0, or a margin that leaves no disc.
    """
    if angles < 4:
        raise ValueError(f"angles is {angles}; the grid needs at least the 4 quarter turns")
    if rounds < 0:
        raise ValueError(f"rounds is {rounds}; it must be 0 or more")
    disc = _disc(x, margin)
    with torch.no_grad():
        upright = module(x)
        maps = upright.dim() == 4

        def judged(degrees: Tensor) -> Tensor:
            y = module(rotated(x, degrees))
            return score(rotated(y, -degrees) * disc, upright * disc) if maps else score(y, upright)

        def referred(degrees: Tensor) -> Tensor:
            if not maps:
                return torch.zeros(len(x))
            return score(rotated(rotated(upright, degrees), -degrees) * disc, upright * disc)

        grid = [torch.full((len(x),), 360 / angles * i, dtype=torch.float64) for i in range(angles)]
        found = torch.stack([judged(degrees) for degrees in grid])  # (angles, N)
        references = torch.stack([referred(degrees) for degrees in grid])
        best, place = found.max(dim=0)
        degrees, step = place.double().cpu() * 360 / angles, 180 / angles
        for _ in range(rounds):
            middle = degrees
            for candidate in (middle - step, middle + step):
                scored = judged(candidate)
                degrees = torch.where((scored > best).cpu(), candidate, degrees)
                best = torch.maximum(best, scored)
            step /= 2
        reference = referred(degrees)
    return WorstRotation(
        tuple((degrees % 360).tolist()),
        tuple(best.tolist()),
        tuple(reference.tolist()),
        tuple(360 / angles * i for i in range(angles)),
        tuple(found.mean(dim=1).tolist()),
        tuple(references.mean(dim=1).tolist()),
    )


def _disc(x: Tensor, margin: int) -> Tensor:
    """1 in the largest disc in the image, made smaller by ``margin``; (H, W)."""
    height, width = x.shape[-2:]
    radius = min(height, width) / 2 - margin
    if margin < 0 or radius < 1:
        raise ValueError(
            f"margin is {margin} for images of {height} x {width}; it must be 0 or more, and leave a disc: "
            "give larger x"
        )
    rows, columns = pixel_grid(x)
    return (torch.hypot(rows - (height - 1) / 2, columns - (width - 1) / 2) <= radius).to(x)


def worst_translation(
    module: Module, x: Tensor, score: Score = relative_change, *, limit: int = 8, step: int = 2, margin: int = 0
) -> WorstTranslation:
    """Search the shift by up to ``limit`` whole pixels that makes ``score`` largest, for each of the images.

    Every ``step``-th shift is tried in rows and columns; then, from the best, one pixel at a time while it gets
    worse.  What enters the image is its reflection.  Maps are compared where no pixel has entered, ``margin`` further
    inside.

    Raises:
        ValueError: a limit or step below 1, or a limit and a margin that leave nothing of the image.
    """
    for name, value in (("limit", limit), ("step", step)):
        if value < 1:
            raise ValueError(f"{name} is {value}; it must be at least 1 pixel")
    height, width = x.shape[-2:]
    edge = limit + margin
    if margin < 0 or 2 * edge >= min(height, width):
        raise ValueError(
            f"limit {limit} and margin {margin} leave nothing of images of {height} x {width}; give larger x, or less"
        )
    known: dict[Shift, Tensor] = {}
    with torch.no_grad():
        upright = module(x)
        maps = upright.dim() == 4
        inside = torch.zeros(height, width).to(x)
        inside[edge : height - edge, edge : width - edge] = 1

        def judged(shift: Shift) -> Tensor:
            if shift not in known:
                y = module(_shifted(x, shift))
                known[shift] = score(_back(y, shift) * inside, upright * inside) if maps else score(y, upright)
            return known[shift]

        line = sorted({0, *range(-limit, limit + 1, step)})
        grid = [(dy, dx) for dy in line for dx in line]
        means = [float(judged(shift).mean()) for shift in grid]
        shifts = [_climbed(partial(_of_image, judged, i), grid, limit) for i in range(len(x))]
        scores = [float(known[shift][i]) for i, shift in enumerate(shifts)]
    return WorstTranslation(tuple(shifts), tuple(scores), tuple(grid), tuple(means))


def _of_image(judged: Callable[[Shift], Tensor], image: int, shift: Shift) -> float:
    return float(judged(shift)[image])


def _climbed(value: Callable[[Shift], float], grid: list[Shift], limit: int) -> Shift:
    best = max(grid, key=value)
    while True:
        y, x = best
        near = [
            (y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if abs(y + dy) <= limit and abs(x + dx) <= limit
        ]
        better = max(near, key=value)
        if value(better) <= value(best):
            return best
        best = better


def _shifted(x: Tensor, shift: Shift) -> Tensor:
    """Content moved down and to the right by (rows, columns)."""
    reach = max(abs(s) for s in shift)
    height, width = x.shape[-2:]
    padded = F.pad(x, (reach,) * 4, mode="reflect")
    return padded[..., reach - shift[0] :, reach - shift[1] :][..., :height, :width]


def _back(y: Tensor, shift: Shift) -> Tensor:
    return y.roll((-shift[0], -shift[1]), (-2, -1))
