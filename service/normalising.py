"""The arithmetic of normalising: one place, so that a map does not depend on where it was done."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def normalised(array: NDArray[Any], mean: float, std: float) -> NDArray[np.float32]:
    """Return ``(array - mean) / std``, computed in float64 and rounded once to float32; same shape."""
    centred = np.subtract(array, mean, dtype=np.float64)
    scaled = np.empty(centred.shape, dtype=np.float32)
    with np.errstate(over="ignore"):  # infinite then, and found in the map
        np.divide(centred, std, out=scaled, casting="same_kind")
    return scaled
