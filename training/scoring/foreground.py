"""Which pixels of a segmentation are scored."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from emboundary.training.crops.boundaries import boundaries_of


def foreground(truth: NDArray[Any], *, border_tolerance: float = 0) -> NDArray[np.bool_]:
    """Pixels with a true label, away from the borders where annotators themselves disagree.

    A border pixel is one that has a pixel of another label, 0 included, among its 4 neighbours in its section.  Pixels
    at most ``border_tolerance`` away from one, border pixels themselves among them, do not count; a tolerance of 0
    keeps them all.

    Source: CREMI's evaluation (``border_mask``, which allows 25 nm).

    Args:
        truth: integer labels (z, y, x); 0 = none.
        border_tolerance: Euclidean distance within a section, in pixels.

    Returns:
        True = counted, of the same shape.

    Raises:
        ValueError: labels that are no integers (z, y, x), or a negative tolerance.
    """
    if not border_tolerance >= 0:
        raise ValueError(f"border_tolerance is {border_tolerance}; it must be 0 (keep all) or a distance in pixels")
    border = boundaries_of(truth)  # and label 0, which is never nearer than the border pixels around it
    if not border_tolerance:
        return np.asarray(truth != 0)
    kept = np.ones(truth.shape, bool)
    for section, edge in zip(kept, border, strict=True):
        if edge.any():  # the distance to nothing is not defined
            section[:] = distance_transform_edt(~edge) > border_tolerance
    return kept
