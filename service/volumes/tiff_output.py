"""Maps as uncompressed TIFF stacks (BigTIFF where needed) with named axes and voxel size.

OME-TIFF for uint8 and float32; float16, which OME has no word for, carries the same keys as tifffile's JSON.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import tifffile
from numpy.typing import NDArray

from emboundary.model.geometry import Box
from emboundary.service.volumes.output import Output

_OME_UNITS = {
    "angstrom": "Å",
    "picometer": "pm",
    "nanometer": "nm",
    "micrometer": "µm",
    "millimeter": "mm",
    "centimeter": "cm",
    "meter": "m",
}


class TiffOutput(Output):
    """A TIFF stack whose voxels stand in one piece, so that any block can be written in any order.

    Written with ``pwrite``, not through a memory map, on which a full disk would end the process.
    """

    def _begin(self, data: Path) -> None:
        spec = self._spec
        tifffile.imwrite(
            data,
            shape=spec.shape,
            dtype=spec.dtype,
            byteorder="<",
            photometric="minisblack",
            ome=spec.dtype != "float16",
            metadata=self._metadata(),
        )
        with tifffile.TiffFile(data) as file:
            offset = file.series[0].dataoffset
        assert offset is not None  # an uncompressed stack is written in one piece
        self._offset = offset
        self._file = os.open(data, os.O_RDWR | os.O_CLOEXEC)
        self._open.callback(os.close, self._file)
        os.posix_fallocate(self._file, 0, data.stat().st_size)  # a full disk shows now, not after hours

    def _store(self, box: Box, encoded: NDArray[Any]) -> None:
        _, height, width = self._spec.shape
        (top, left), item = box.start[1:], encoded.itemsize
        for z, section in enumerate(encoded, box.start[0]):
            # Rows as wide as the stack follow each other without a gap: one piece.
            pieces = [section] if box.shape[2] == width else section
            for y, piece in enumerate(pieces, top):
                self._pwrite(piece, self._offset + ((z * height + y) * width + left) * item)

    def _pwrite(self, piece: NDArray[Any], offset: int) -> None:
        data = memoryview(piece.astype(piece.dtype.newbyteorder("<"), order="C", copy=False).data).cast("B")
        while data:
            written = os.pwrite(self._file, data, offset)
            data, offset = data[written:], offset + written

    def _finish(self) -> None:
        """Every block is stored by the time ``write`` returns."""

    def _metadata(self) -> dict[str, Any]:
        sizes: dict[str, Any] = {}
        for axis in self._spec.axes:
            if axis.scale is not None and axis.unit in _OME_UNITS:
                letter = axis.name.upper()
                sizes[f"PhysicalSize{letter}"] = axis.scale
                sizes[f"PhysicalSize{letter}Unit"] = _OME_UNITS[axis.unit]
        return {"axes": "ZYX", **sizes, "Description": json.dumps(self._spec.provenance)}
