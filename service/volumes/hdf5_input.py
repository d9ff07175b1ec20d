"""HDF5 datasets, named ``file.h5::/path/to/dataset``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, BinaryIO

import h5py

from emboundary.service.errors import InputError, first_line
from emboundary.service.volumes.axes import Axis
from emboundary.service.volumes.hdf5_chunks import Chunked
from emboundary.service.volumes.source import Source, unchunked

_SEPARATOR = "::"
# Written by ilastik, the Fiji HDF5 plug-in and PlantSeg: the extent of an element, in micrometres.
_ELEMENT_SIZE = "element_size_um"
# Written by CREMI and by gunpowder: the extent of a voxel, in nanometres.
_RESOLUTION = "resolution"
SIGNATURE = b"\x89HDF\r\n\x1a\n"


def split_name(where: str) -> tuple[str, str] | None:
    """File and dataset of ``file.h5::/dataset``; None where no dataset is named."""
    name, separator, inside = where.rpartition(_SEPARATOR)
    return (name, inside) if separator and "://" not in inside else None


def open_hdf5(where: str, name: str, inside: str, opened: str | BinaryIO, state: Mapping[str, Any]) -> Source:
    """Open a dataset of an HDF5 file.

    Args:
        where: what the user called it, for messages.
        name: the file's part of it.
        inside: the dataset's path inside the file.
        opened: the file's path, or the file itself where it is remote; it is closed with the source.
        state: what changes when the file changes.

    Raises:
        InputError: no such file or dataset, or a file that is not HDF5.
    """
    file = _open_file(name, opened)

    def close() -> None:
        file.close()
        if not isinstance(opened, str):
            opened.close()

    try:
        return _open_dataset(where, name, inside, file, state, close)
    except InputError:
        close()
        raise
    except Exception as error:  # damaged metadata fail anywhere inside h5py
        close()
        raise InputError(f"{where} is a damaged HDF5 file: {first_line(error)}; copy or export it again") from error


def refuse_unnamed(where: str, opened: str | BinaryIO) -> InputError:
    """The error for an HDF5 file given without a dataset; it lists what there is."""
    with _open_file(where, opened) as file:
        found = list_datasets(file)
    return InputError(f"{where} is an HDF5 file: name a dataset inside it as {where}::/NAME; it holds {found}")


def list_datasets(file: h5py.File) -> str:
    """The first datasets of a file, for messages."""
    found: list[str] = []

    def visit(name: str, item: Any) -> bool | None:
        if isinstance(item, h5py.Dataset):
            found.append(f"/{name}" if name.isprintable() else repr(f"/{name}"))
        return True if len(found) == 8 else None  # enough: a file can hold millions

    try:
        file.visititems(visit)
    except Exception as error:  # damaged metadata fail anywhere inside h5py
        return f"what cannot be listed ({first_line(error)})"
    return ", ".join(found) or "no dataset"


def _open_file(name: str, opened: str | BinaryIO) -> h5py.File:
    try:
        return h5py.File(opened, "r")
    except FileNotFoundError:
        raise InputError(f"{name} does not exist; check the path") from None
    except Exception as error:
        raise InputError(f"{name} cannot be opened as HDF5: {first_line(error)}") from error


def _open_dataset(where: str, name: str, inside: str, file: h5py.File, state: Mapping[str, Any], close: Any) -> Source:
    dataset = file.get(inside) if inside else None
    if not isinstance(dataset, h5py.Dataset) or dataset.shape is None:
        raise InputError(f"{name} holds no dataset {inside!r}; it holds {list_datasets(file)}")
    if dataset.external:
        raise InputError(
            f"{where} keeps its voxels in another file, {dataset.external[0][0]!r}; they must be in the file itself: "
            "rewrite it with h5repack"
        )
    _refuse_unknown_filters(where, dataset)
    chunks = dataset.chunks
    return Source(
        where,
        dataset if chunks is None else Chunked(dataset),
        chunks or unchunked(dataset.shape),
        _axes(dataset),
        close,
        decoded=chunks,
        fill_value=_fill_value(dataset),
        state=state,
    )


def _refuse_unknown_filters(where: str, dataset: h5py.Dataset) -> None:
    plist = dataset.id.get_create_plist()
    for index in range(plist.get_nfilters()):
        number, _, _, label = plist.get_filter(index)
        if not h5py.h5z.filter_avail(number):
            raise InputError(
                f"{where} is compressed with filter {number} ({label.decode(errors='replace')}), which is not "
                "installed: rewrite it with h5repack -f GZIP=4, or install its HDF5 plug-in"
            )


def _fill_value(dataset: h5py.Dataset) -> float:
    value = dataset.fillvalue
    return value.item() if getattr(value, "shape", None) == () and math.isfinite(value) else 0


def _axes(dataset: h5py.Dataset) -> tuple[Axis, ...]:
    labels = [dimension.label.lower() for dimension in dataset.dims]
    for name, unit in ((_ELEMENT_SIZE, "micrometer"), (_RESOLUTION, "nanometer")):
        sizes = dataset.attrs.get(name)
        if getattr(sizes, "shape", None) == (dataset.ndim,) and sizes.dtype.kind in "iuf":
            return tuple(Axis(label, float(size), unit) for label, size in zip(labels, sizes, strict=True))
    return tuple(Axis(label) for label in labels)
