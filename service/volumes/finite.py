"""Voxel values must be finite: one NaN spoils the statistics of a whole volume."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from emboundary.model.geometry import Triple
from emboundary.service.errors import NonFiniteError


def refuse_non_finite(block: NDArray[Any], start: Triple) -> None:
    """Refuse a block (z, y, x) of floats that holds NaN or an infinity; ``start`` is its place in the volume.

    Raises:
        NonFiniteError: names the first such voxel, counted from the volume's origin.
    """
    if block.dtype.kind != "f":
        return
    bad = ~np.isfinite(block)
    if bad.any():
        place = np.unravel_index(int(np.argmax(bad)), bad.shape)
        at = ", ".join(str(int(p) + s) for p, s in zip(place, start, strict=True))
        raise NonFiniteError(
            f"the volume holds {block[place]} at voxel (z, y, x) = ({at}); every value must be finite: "
            "replace such voxels, for example by the volume's mean"
        )
