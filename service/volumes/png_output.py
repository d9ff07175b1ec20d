"""Maps of a single section as 8-bit PNG."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import imagecodecs

from emboundary.model.geometry import Box
from emboundary.service.volumes.flat_output import FlatOutput

_SIGNATURE_AND_HEADER = 8 + 25  # bytes; what describes an image may follow


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
        png = imagecodecs.png_encode(image)
        text = _text("emboundary", json.dumps(provenance))
        self._data.write_bytes(png[:_SIGNATURE_AND_HEADER] + text + png[_SIGNATURE_AND_HEADER:])


def _text(keyword: str, text: str) -> bytes:
    """An ``iTXt`` chunk, uncompressed and of no language (PNG specification, 11.3.3.4)."""
    body = b"iTXt" + keyword.encode("latin-1") + b"\0" * 5 + text.encode()
    return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
