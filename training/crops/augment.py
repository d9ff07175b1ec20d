"""Random changes of a crop that leave its meaning, from the section that it lies in."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from emboundary.model.groups import act
from emboundary.training.config import AugmentConfig
from emboundary.training.crops.intensities import change_intensities
from emboundary.training.crops.warping import draw_warp

Image = NDArray[np.float32]


def augmented_crop(
    sections: Image,
    target: NDArray[np.bool_] | NDArray[np.uint8],
    corner: tuple[int, int],
    side: int,
    config: AugmentConfig,
    seed: tuple[int, ...],
) -> tuple[Image, Image]:
    """Cut a crop out of a section and its neighbours, and change it.

    Each kind of change draws from a stream of its own, so that switching one on or off leaves the others as they are.

    Args:
        sections: the section and its neighbours (c, y, x), the section itself in the middle.
        target: of the section, True = boundary, or uint8 = 255 times a soft target, (y, x).
        corner: first pixel (y, x) of the crop.
        side: of the crop, in pixels.
        config: what may change.
        seed: of every change.

    Returns:
        The image (c, side, side) and its target (side, side), 0 or 1 (from 0 to 1 where it is soft); new contiguous
        float32 arrays.
    """
    turns, places, shades = (np.random.default_rng([*seed, kind]) for kind in range(3))
    warp = draw_warp(corner, side, config, places)
    if warp is None:
        window = tuple(slice(first, first + side) for first in corner)
        levels = np.float32(255 if target.dtype == np.uint8 else 1)
        image, truth = sections[:, *window], target[window].astype(np.float32) / levels
    else:
        image, truth = np.stack([warp.image(section) for section in sections]), warp.target(target)
    if config.symmetry:
        element = int(turns.integers(8))
        image, truth = act(element, image), act(element, truth)
    return change_intensities(image, config, shades), np.ascontiguousarray(truth)
