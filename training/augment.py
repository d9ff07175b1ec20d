"""Random changes of a crop that leave its meaning: rotations and flips, contrast, brightness, noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from emboundary.model.groups import act
from emboundary.training.config import AugmentConfig


def augment(
    image: NDArray[np.float32], target: NDArray[np.float32], config: AugmentConfig, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Change one crop and its target, both (y, x); new contiguous arrays.

    All random numbers are drawn whether they are used or not, so that one switch does not change the others.
    """
    element = int(rng.integers(8))
    gain = np.exp(rng.uniform(-1, 1) * config.contrast)
    shift = rng.uniform(-1, 1) * config.brightness
    sigma = rng.uniform(0, 1) * config.noise
    if config.symmetry:
        image, target = act(element, image), act(element, target)
    changed = image * np.float32(gain) + np.float32(shift)
    if config.noise:
        changed = changed + np.float32(sigma) * rng.standard_normal(changed.shape, dtype=np.float32)
    return np.ascontiguousarray(changed), np.ascontiguousarray(target)
