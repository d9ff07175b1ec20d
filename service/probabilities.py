"""How probabilities are stored and sent: as floats, or as uint8 levels round(255 p)."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Dtype = Literal["uint8", "float16", "float32"]

_LEVELS = np.float32(255)


def to_stored(probability: NDArray[Any], dtype: Dtype) -> NDArray[Any]:
    """Probabilities as they are stored; those that are stored so already stay as they are."""
    if dtype == "uint8" and probability.dtype != np.uint8:
        probability = np.rint(probability * _LEVELS)
    stored: NDArray[Any] = probability.astype(dtype, copy=False)
    return stored


def from_stored(stored: NDArray[Any]) -> NDArray[np.float32]:
    """Probabilities from what is stored; storing them again gives the same values."""
    probability = stored.astype(np.float32, copy=False)
    return probability / _LEVELS if stored.dtype == np.uint8 else probability
