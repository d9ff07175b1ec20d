"""Open any volume: the kind of file is read from its content, never from its name."""

from __future__ import annotations

from pathlib import Path

import h5py

from emboundary.service.errors import InputError
from emboundary.service.volumes import png_input
from emboundary.service.volumes.hdf5_input import names_dataset, open_hdf5, refuse_unnamed
from emboundary.service.volumes.png_input import open_png
from emboundary.service.volumes.source import Source
from emboundary.service.volumes.tiff_input import open_tiff
from emboundary.service.volumes.volume import Volume
from emboundary.service.volumes.zarr_input import open_zarr

_TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def open_volume(where: str | Path, *, axes: str | None = None) -> Volume:
    """Open a volume for reading parts of it.

    Args:
        where: an OME-Zarr group or Zarr array (path or URL), a TIFF stack, ``file.h5::/dataset``, or a PNG.
        axes: the order of the axes where the file does not say it, e.g. ``zyx``; overrides what it says.

    Raises:
        InputError: missing, unreadable, damaged, or not a volume of grey values.
        UsageError: ``axes`` that do not fit the array.
    """
    source = _open(str(where))
    try:
        return Volume(source, axes)
    except BaseException:
        source.close()
        raise


def _open(where: str) -> Source:
    if "://" in where:
        return open_zarr(where)
    path = Path(where)
    try:
        if path.is_dir():
            return open_zarr(where)
        if names_dataset(where) and not path.exists():
            return open_hdf5(where)
        return _open_file(path)
    except FileNotFoundError:
        raise InputError(f"{where} does not exist; check the path") from None
    except OSError as error:
        raise InputError(f"{where} cannot be read: {error.strerror or error}; check its permissions") from error


def _open_file(path: Path) -> Source:
    with path.open("rb") as file:
        head = file.read(8)
    if not head:
        raise InputError(f"{path} is empty (0 bytes); copy or export it again")
    if head.startswith(_TIFF_SIGNATURES):
        return open_tiff(path)
    if head == png_input.SIGNATURE:
        return open_png(path)
    if h5py.is_hdf5(path):
        raise refuse_unnamed(path)
    raise InputError(
        f"{path} is no format that can be read here; it must be a Zarr folder, a TIFF stack, an HDF5 dataset "
        "(file.h5::/NAME) or a PNG"
    )
