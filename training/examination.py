"""What a segmenter is examined for: symmetry, expansion, stability, and its worst rotation and translation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emboundary.model.equivariance import Errors, equivariance_error
from emboundary.model.groups import D4
from emboundary.model.inception import STRIDE, Segmenter
from emboundary.model.lipschitz import LipschitzBound, lipschitz_bound
from emboundary.model.stability import StabilityCurve, deformation_curve, lipschitz_estimate, noise_curve
from emboundary.model.worst_case import WorstRotation, WorstTranslation, worst_rotation, worst_translation
from emboundary.service.errors import InputError

LEAST_SIDE = 64
_MOST_IMAGES = 4
# A bound needs many applications of every layer, an estimate a graph of the whole network.
_BOUND_SIDE, _ESTIMATE_SIDE = 32, 64


@dataclass(frozen=True)
class Examination:
    """Everything that was measured.

    Attributes:
        name: of the model.
        images: where they are from.
        count, side: how many there were, and their (height, width).
        equivariance: of the logits, under D4.
        bound: of logits, for images as wide as it says; None where a layer's constant is not known.
        estimate: the largest expansion of logits that was found at middles of the images, ``estimate_side`` wide.
        deformations, noise: of probabilities.
        rotation, translation: of probabilities, in the relative Euclidean norm; ``margin`` pixels less than the
            largest disc, and than what no shift reaches, are compared.
    """

    name: str
    images: str
    count: int
    side: tuple[int, int]
    equivariance: Errors
    bound: LipschitzBound | None
    estimate: float
    estimate_side: int
    deformations: StabilityCurve
    noise: StabilityCurve
    rotation: WorstRotation
    translation: WorstTranslation
    margin: int

    def as_json(self) -> dict[str, Any]:
        """Plain objects with the same names."""
        return asdict(self)


def examine(
    net: Segmenter,
    images: Sequence[NDArray[np.float32]],
    *,
    name: str,
    origin: str,
    report: Callable[[str], None] = lambda _: None,
) -> Examination:
    """Examine a segmenter on normalised images (1, c, H, W) of one size; at most four are used.

    Raises:
        InputError: images with a side below 64 pixels, of which nothing is left to compare.
    """
    x = torch.from_numpy(np.concatenate(images[:_MOST_IMAGES]))
    height, width = x.shape[-2:]
    if min(height, width) < LEAST_SIDE:
        raise InputError(f"images are {height} x {width}; an examination needs at least {LEAST_SIDE} x {LEAST_SIDE}")
    net = net.cpu().float().eval().requires_grad_(False)
    margin = min(height, width) // 4

    def probability(image: Tensor) -> Tensor:
        return torch.sigmoid(net(image))

    report("equivariance error")
    equivariance = equivariance_error(net, x, D4)
    report("Lipschitz bound and estimate")
    try:
        bound = lipschitz_bound(net, (x.shape[1], _BOUND_SIDE, _BOUND_SIDE))
    except TypeError as error:
        report(f"no Lipschitz bound: {error}")
        bound = None
    estimate = lipschitz_estimate(net, _middle(x, _ESTIMATE_SIDE))
    report("stability")
    deformations, noise = deformation_curve(probability, x), noise_curve(probability, x)
    report("worst rotation and translation")
    return Examination(
        name,
        origin,
        len(x),
        (height, width),
        equivariance,
        bound,
        estimate,
        _ESTIMATE_SIDE,
        deformations,
        noise,
        worst_rotation(probability, x, margin=margin),
        worst_translation(probability, x, limit=STRIDE, margin=margin // 2),
        margin,
    )


def _middle(x: Tensor, side: int) -> Tensor:
    top, left = ((length - side) // 2 for length in x.shape[-2:])
    return x[..., top : top + side, left : left + side]
