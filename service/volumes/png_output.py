"""Maps of a single section as 8-bit PNG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from emboundary.model.geometry import Box
from emboundary.service.volumes.output import Output


class PngOutput(Output):
    """One grey image; the format wants it whole, so it is held in memory until ``commit``."""

    def _begin(self, data: Path) -> None:
        self._data = data
        self._image = np.zeros(self._spec.shape, dtype=np.uint8)

    def _store(self, box: Box, encoded: NDArray[Any]) -> None:
        self._image[box.slices] = encoded

    def _finish(self) -> None:
        self._data.write_bytes(imagecodecs.png_encode(self._image[0]))
