"""From neuron ids to the boundary target that a segmenter learns."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def boundaries_of(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Where a section's neurons meet: label 0, or a pixel one of whose 4 neighbours in its section has another label.

    Args:
        labels: integer neuron ids (z, y, x); 0 = membrane or extracellular space.

    Returns:
        True = boundary, of the same shape.

    Raises:
        ValueError: labels that are no integers, or not (z, y, x).
    """
    if labels.ndim != 3 or labels.dtype.kind not in "iu":
        raise ValueError(f"labels are {labels.dtype} of shape {labels.shape}; they must be integer ids (z, y, x)")
    boundary: NDArray[np.bool_] = labels == 0
    for axis in (1, 2):
        differ = np.diff(labels, axis=axis) != 0
        here = [slice(None)] * 3
        for side in (slice(None, -1), slice(1, None)):  # both pixels of a pair that differs
            here[axis] = side
            boundary[tuple(here)] |= differ
    return boundary
