"""Whether something on disk is a map of ours: it says so itself, where every map tells how it was made."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import tifffile

from emboundary.service.volumes.bounds import DOCUMENT_BYTES
from emboundary.service.volumes.hdf5_output import DATASET

_ATTRIBUTE = "emboundary"
_VERSION = "emboundary_version"
# Signature, and the chunk IHDR with its checksum; what a map says of itself follows.
_PNG_HEAD = 8 + 25
_PNG_BYTES = 1 << 12


def is_map(path: Path) -> bool:
    """Whether a file or folder was written as OUTPUT; False for what cannot be read, and for what never said so."""
    try:
        if path.is_dir():
            return _zarr(path)
        if not path.is_file():
            return False
        with path.open("rb") as file:
            head = file.read(_PNG_BYTES)
        if head.startswith(b"\x89PNG"):
            return head[_PNG_HEAD + 4 :].startswith(b"iTXt" + _ATTRIBUTE.encode() + b"\0") and _VERSION.encode() in head
        if head.startswith(b"\x89HDF"):
            with h5py.File(path, "r") as opened:
                return _VERSION in json.loads(opened[DATASET].attrs[_ATTRIBUTE])
        with tifffile.TiffFile(path) as tiff:
            return _VERSION in str(tiff.pages.first.tags["ImageDescription"].value)
    except Exception:  # foreign files fail in as many ways as there are libraries
        return False


def _zarr(folder: Path) -> bool:
    for name, inside in (("zarr.json", "attributes"), (".zattrs", None)):
        document = folder / name
        if document.is_file() and document.stat().st_size <= DOCUMENT_BYTES:
            found = json.loads(document.read_bytes())
            return _VERSION in (found if inside is None else found[inside])[_ATTRIBUTE]
    return False
