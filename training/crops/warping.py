"""Random changes of where a crop's pixels are taken from: any angle, any scale, elastic deformation.

A crop of side S about a centre c (y, x) takes its pixel at offset u from

    c + exp(s) R(angle) u + e(u),   e = smooth displacement

of the section, by cubic interpolation for the image and linear for the target (boundary where at least one half),
reflected at the section's borders.  Elastic deformation: Ronneberger et al. 2015 (U-Net), section 3.1, random
displacements on a coarse grid with bicubic interpolation between them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from emboundary.training.config import AugmentConfig

Plane = NDArray[np.float32]


@dataclass(frozen=True)
class Warp:
    """Where each pixel of a crop is taken from: coordinates in its section, both (y, x), float32."""

    y: Plane
    x: Plane

    def image(self, section: Plane) -> Plane:
        """The crop of a section (y, x)."""
        return _remap(section, self, cv2.INTER_CUBIC)

    def target(self, section: NDArray[np.bool_] | NDArray[np.uint8]) -> Plane:
        """The crop of a target (y, x): 0 or 1; of a soft one, uint8 = 255 times it, from 0 to 1."""
        taken = _remap(section, self, cv2.INTER_LINEAR)
        return taken / np.float32(255) if section.dtype == np.uint8 else (taken >= 0.5).astype(np.float32)


def draw_warp(corner: tuple[int, int], side: int, config: AugmentConfig, rng: np.random.Generator) -> Warp | None:
    """Draw a warp of the crop at ``corner`` (y, x); None where the configuration asks for none.

    All numbers are drawn whether they are used or not, so that one switch does not change the others.
    """
    angle = rng.uniform(0, 2 * np.pi) if config.rotate else 0.0
    magnification = np.exp(rng.uniform(-1, 1) * config.scale)
    if not (config.rotate or config.scale or config.elastic):
        return None
    offset = np.arange(side, dtype=np.float32) - np.float32((side - 1) / 2)
    v, u = np.meshgrid(offset / magnification, offset / magnification, indexing="ij")
    centre_y, centre_x = (first + (side - 1) / 2 for first in corner)
    y = centre_y + np.cos(angle) * v - np.sin(angle) * u
    x = centre_x + np.sin(angle) * v + np.cos(angle) * u
    if config.elastic:
        points = side // config.elastic_spacing + 3
        coarse = rng.normal(0, config.elastic, (points, points, 2)).astype(np.float32)
        smooth = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
        y, x = y + smooth[..., 0], x + smooth[..., 1]
    return Warp(y.astype(np.float32), x.astype(np.float32))


def _remap(section: NDArray[Any], warp: Warp, interpolation: int) -> Plane:
    # Only the part that the crop reaches into, so that a target need not be converted whole.
    low_y, low_x = (max(0, int(c.min()) - 4) for c in (warp.y, warp.x))
    high_y, high_x = (int(c.max()) + 5 for c in (warp.y, warp.x))
    part = np.ascontiguousarray(section[low_y:high_y, low_x:high_x], dtype=np.float32)
    inside = cv2.remap(part, warp.x - low_x, warp.y - low_y, interpolation, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(inside, np.float32)
