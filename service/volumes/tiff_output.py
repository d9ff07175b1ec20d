"""Maps as uncompressed TIFF stacks (BigTIFF where needed) with named axes and voxel size.

OME-TIFF for uint8 and float32; float16, which OME has no word for, carries the same keys as tifffile's JSON.
"""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import tifffile

from emboundary.service.volumes.flat_output import FlatOutput

_OME_UNITS = {
    "angstrom": "Å",
    "picometer": "pm",
    "nanometer": "nm",
    "micrometer": "µm",
    "millimeter": "mm",
    "centimeter": "cm",
    "meter": "m",
}


class TiffOutput(FlatOutput):
    """A TIFF stack; what it says about itself is one text, replaced at the end by one behind the voxels."""

    def _create(self, file: Path) -> int:
        self._describe(file, self._spec.provenance)
        with tifffile.TiffFile(file) as tiff:
            offset = tiff.series[0].dataoffset
        assert offset is not None  # an uncompressed stack is written in one piece
        return offset

    def _annotate(self, provenance: dict[str, Any]) -> None:
        if provenance == self._spec.provenance:
            return
        twin = self._data.with_name("twin.tif")  # the same stack with another text, and no voxels on the disk
        self._describe(twin, provenance)
        with tifffile.TiffFile(twin) as tiff:
            text = tiff.pages.first.tags["ImageDescription"].value
        twin.unlink()
        with tifffile.TiffFile(self._data, mode="r+") as tiff:
            tiff.pages.first.tags["ImageDescription"].overwrite(text)

    def _describe(self, file: Path, provenance: dict[str, Any]) -> None:
        """Create a sparse stack of no written voxel."""
        tifffile.imwrite(
            file,
            shape=self._spec.shape,
            dtype=self._spec.dtype,
            byteorder="<",
            photometric="minisblack",
            ome=self._spec.dtype != "float16",
            metadata=self._metadata(provenance),
        )

    def _metadata(self, provenance: dict[str, Any]) -> dict[str, Any]:
        sizes: dict[str, Any] = {}
        for axis in self._spec.axes:
            if axis.scale is not None and axis.unit in _OME_UNITS:
                letter = axis.name.upper()
                sizes[f"PhysicalSize{letter}"] = axis.scale
                sizes[f"PhysicalSize{letter}Unit"] = _OME_UNITS[axis.unit]
        described = {"axes": "ZYX", **sizes, "Description": json.dumps(provenance)}
        # OME asks for an identifier; by default a random one, with which no two runs would give the same bytes.
        return {**described, "UUID": str(uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(described)))}
