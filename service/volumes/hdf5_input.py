"""HDF5 datasets, named ``file.h5::/path/to/dataset``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py

from emboundary.service.errors import InputError, first_line
from emboundary.service.volumes.axes import Axis
from emboundary.service.volumes.source import Source, unchunked

_SEPARATOR = "::"
# Written by ilastik, the Fiji HDF5 plug-in and PlantSeg: the extent of an element, in micrometres.
_ELEMENT_SIZE = "element_size_um"


def names_dataset(where: str) -> bool:
    """Whether a path names a dataset inside a file."""
    return _SEPARATOR in where


def open_hdf5(where: str) -> Source:
    """Open ``file.h5::/path/to/dataset``.

    Raises:
        InputError: no such file or dataset, or a file that is not HDF5.
    """
    name, _, inside = where.rpartition(_SEPARATOR)
    file = _open_file(Path(name))
    dataset = file.get(inside) if inside else None
    if not isinstance(dataset, h5py.Dataset) or dataset.shape is None:
        found = list_datasets(file)
        file.close()
        raise InputError(f"{name} holds no dataset {inside!r}; it holds {found}")
    return Source(where, dataset, dataset.chunks or unchunked(dataset.shape), _axes(dataset), file.close)


def refuse_unnamed(path: Path) -> InputError:
    """The error for an HDF5 file given without a dataset; it lists what there is."""
    with _open_file(path) as file:
        found = list_datasets(file)
    return InputError(f"{path} is an HDF5 file: name a dataset inside it as {path}::/NAME; it holds {found}")


def list_datasets(file: h5py.File) -> str:
    """The first datasets of a file, for messages."""
    found: list[str] = []

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found.append(f"/{name}")

    file.visititems(visit)
    return ", ".join(found[:8]) or "no dataset"


def _open_file(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r")
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; check the path") from None
    except OSError as error:
        raise InputError(f"{path} cannot be opened as HDF5: {first_line(error)}") from error


def _axes(dataset: h5py.Dataset) -> tuple[Axis, ...]:
    labels = [dimension.label.lower() for dimension in dataset.dims]
    sizes = dataset.attrs.get(_ELEMENT_SIZE)
    if sizes is None or len(sizes) != dataset.ndim:
        return tuple(Axis(label) for label in labels)
    return tuple(Axis(label, float(size), "micrometer") for label, size in zip(labels, sizes, strict=True))
