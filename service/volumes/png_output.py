"""Maps of a single section as 8-bit PNG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import imagecodecs

from emboundary.model.geometry import Box
from emboundary.service.volumes.flat_output import FlatOutput


class PngOutput(FlatOutput):
    """One grey image, which the format wants whole: voxels stand in a file of their own until the end."""

    @property
    def _voxels(self) -> Path:
        return self._data.with_suffix(".raw")

    def _create(self, file: Path) -> int:
        file.write_bytes(b"")
        return 0

    def _annotate(self, provenance: dict[str, Any]) -> None:
        image = self._load(Box.of_shape(self._spec.shape), 0)[0]
        self._data.write_bytes(imagecodecs.png_encode(image))
