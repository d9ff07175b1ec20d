"""Open any volume: the kind of file is read from its content, never from its name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import h5py

from emboundary.service.errors import InputError, first_line
from emboundary.service.volumes import hdf5_input, png_input
from emboundary.service.volumes.hdf5_input import open_hdf5, refuse_unnamed, split_name
from emboundary.service.volumes.png_input import open_png
from emboundary.service.volumes.sections_input import holds_sections, open_sections
from emboundary.service.volumes.source import Source
from emboundary.service.volumes.storage import Folder, LocalFolder, RemoteFolder, file_state, is_url, open_url
from emboundary.service.volumes.tensorstore_input import open_n5, open_precomputed
from emboundary.service.volumes.tiff_input import open_tiff
from emboundary.service.volumes.volume import Volume
from emboundary.service.volumes.zarr_input import open_zarr, read_documents

_TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def open_volume(
    where: str | Path,
    axes: str | None = None,
    voxel_size_nm: tuple[float, float, float] | None = None,
    *,
    labels: bool = False,
) -> Volume:
    """Open a volume for reading parts of it.

    Args:
        where: path or URL of an OME-Zarr group, a Zarr array, an N5 dataset, a Neuroglancer precomputed volume, a
            TIFF stack, ``file.h5::/dataset``, a PNG, or a folder with one PNG or TIFF per section.
        axes: the order of the axes where the file does not say it, e.g. ``zyx``; overrides what it says.
        voxel_size_nm: extent of a voxel (z, y, x) in nm; overrides what the file says.
        labels: whether voxels may be of any whole type, as those of masks and segmentations are.

    Raises:
        InputError: missing, unreadable, damaged, or not a volume of grey values.
        UsageError: ``axes`` that do not fit the array, or a voxel size that is not three finite numbers above 0.
    """
    source = _open(str(where))
    try:
        return Volume(source, axes, voxel_size_nm, labels=labels)
    except BaseException:
        source.close()
        raise


def _open(where: str) -> Source:
    if "\0" in where:
        raise InputError(f"{where!r} is no path: it has a null character in it")
    try:
        return _open_remote(where) if is_url(where) else _open_local(where)
    except FileNotFoundError:
        raise InputError(f"{where} does not exist; check the path") from None
    except OSError as error:
        raise InputError(
            f"{where} cannot be read: {error.strerror or first_line(error)}; check its permissions"
        ) from error


def _open_local(where: str) -> Source:
    path = Path(where)
    if path.is_dir():
        return _open_folder(LocalFolder(path))
    named = split_name(where)
    if named is not None and not path.exists():
        name, inside = named
        state = file_state(Path(name)) if os.path.exists(name) else {}  # noqa: PTH110  # "" is no Path of its own
        return open_hdf5(where, name, inside, name, state)
    with ExitStack() as stack:
        file = stack.enter_context(path.open("rb"))
        head = _head(where, file)
        if head == hdf5_input.SIGNATURE or (not _is_known(head) and h5py.is_hdf5(path)):
            # The signature may also stand behind a block of the user's own.
            raise refuse_unnamed(where, where)
        source = _open_file(where, file, file_state(path), head)
        stack.pop_all()
        return source


def _open_remote(where: str) -> Source:
    named = split_name(where)
    if named is not None:
        name, inside = named
        file, state = open_url(name)
        return open_hdf5(where, name, inside, _seekable(name, file), state)
    folder = RemoteFolder(where)
    source = _open_described(folder)
    if source is not None:
        return source
    try:
        file, state = open_url(where)
    except FileNotFoundError:  # a folder is no file
        return _open_images(folder)
    with ExitStack() as stack:
        stack.callback(file.close)
        head = _head(where, file)
        if not _is_known(head):  # a web server answers for a folder, too
            names = folder.names()
            if holds_sections(names):
                return open_sections(folder, names)
        if head.startswith(hdf5_input.SIGNATURE):
            raise refuse_unnamed(where, _seekable(where, file))
        if head.startswith(_TIFF_SIGNATURES):
            _seekable(where, file)
        source = _open_file(where, file, state, head)
        stack.pop_all()
        return source


def _open_folder(folder: Folder) -> Source:
    return _open_described(folder) or _open_images(folder)


def _open_described(folder: Folder) -> Source | None:
    """Open a folder that describes itself in a document of metadata; None where there is none."""
    documents = read_documents(folder)
    if documents.keys() & {"zarr.json", ".zarray", ".zgroup"}:
        return open_zarr(folder, documents)
    if (attributes := folder.read("attributes.json")) is not None:
        return open_n5(folder.where, attributes)
    if (info := folder.read("info")) is not None:
        return open_precomputed(folder.where, info)
    return None


def _open_images(folder: Folder) -> Source:
    names = folder.names()
    if not holds_sections(names):
        raise InputError(
            f"{folder.where} holds neither a Zarr array nor a Zarr group, an N5 dataset, a precomputed volume or "
            "section images (PNG or TIFF); give the folder that has its metadata"
        )
    return open_sections(folder, names)


def _open_file(where: str, file: BinaryIO, state: Mapping[str, Any], head: bytes) -> Source:
    if not head:
        raise InputError(f"{where} is empty (0 bytes); copy or export it again")
    if head.startswith(_TIFF_SIGNATURES):
        return open_tiff(where, file, state)
    if head == png_input.SIGNATURE:
        return open_png(where, file, state, head)
    raise InputError(
        f"{where} is no format that can be read here; it must be a Zarr folder, a TIFF stack, an HDF5 dataset "
        "(file.h5::/NAME), a PNG, a folder of section images, or a folder of N5 or Neuroglancer precomputed"
    )


def _is_known(head: bytes) -> bool:
    return head.startswith((*_TIFF_SIGNATURES, png_input.SIGNATURE, hdf5_input.SIGNATURE))


def _head(where: str, file: BinaryIO) -> bytes:
    try:
        return file.read(8)
    except Exception as error:  # every protocol has exceptions of its own
        raise InputError(f"{where} cannot be read: {first_line(error)}; check its permissions") from error


def _seekable(where: str, file: BinaryIO) -> BinaryIO:
    try:
        file.seek(1)
        file.seek(0)
    except (OSError, ValueError):
        file.close()
        raise InputError(
            f"{where} comes from a server that gives no parts of a file; download the file first"
        ) from None
    return file
