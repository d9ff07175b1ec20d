"""Random changes of a crop's intensities: what differs between microscopes, stains and sections.

Every function takes and gives images (c, y, x) whose channels are neighbouring sections, float32, in standard
deviations of the volume.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from emboundary.training.config import AugmentConfig

Image = NDArray[np.float32]

_RANGE = 4.0  # standard deviations about the mean that gamma takes for black and white


def change_intensities(image: Image, config: AugmentConfig, rng: np.random.Generator) -> Image:
    """Contrast, brightness, gamma, blur, noise and defects of one crop, and missing neighbours.

    All sections of a crop change alike but for noise and for what befalls single sections.
    """
    gain, shift, power, sigma, width = rng.uniform(-1, 1, 5)
    defect, kind = rng.uniform(0, 1, 2)
    here, reach, depth = rng.uniform(0, 1, 2), rng.uniform(0.1, 0.4), rng.uniform(-3, 3)
    lost = rng.uniform(0, 1, image.shape[0])
    changed = image * np.float32(np.exp(gain * config.contrast)) + np.float32(shift * config.brightness)
    if config.gamma:
        fraction = np.clip((changed + _RANGE) / (2 * _RANGE), 0, 1)
        changed = (fraction ** np.exp(power * config.gamma) * (2 * _RANGE) - _RANGE).astype(np.float32)
    if defect < config.defects:
        changed = _faint(changed, reach) if kind < 0.5 else _stained(changed, here, reach, depth)
    if config.blur and abs(width) * config.blur > 0.2:  # a narrower kernel leaves the pixels as they are
        changed = np.stack([cv2.GaussianBlur(c, (0, 0), abs(width) * config.blur) for c in changed])
    if config.noise:
        changed = changed + np.float32(abs(sigma) * config.noise) * rng.standard_normal(changed.shape, dtype=np.float32)
    neighbour = np.arange(image.shape[0]) != image.shape[0] // 2
    changed[neighbour & (lost < config.missing)] = 0
    return np.ascontiguousarray(changed, dtype=np.float32)


def _faint(image: Image, contrast: float) -> Image:
    """A section with little contrast: intensities come near to their mean."""
    mean = image.mean(axis=(1, 2), keepdims=True)
    return np.asarray(mean + np.float32(contrast + 0.1) * (image - mean), np.float32)


def _stained(image: Image, centre: NDArray[np.float64], reach: float, depth: float) -> Image:
    """A soft dark or light stain on the middle section, its radius a fraction of the crop's side."""
    side = image.shape[-1]
    y, x = (np.exp(-0.5 * ((np.arange(side) - c * side) / (reach * side)) ** 2) for c in centre)
    stained = image.copy()
    stained[image.shape[0] // 2] += (depth * np.outer(y, x)).astype(np.float32)
    return stained
