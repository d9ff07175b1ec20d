"""Links inside volumes that lead to other files: of HDF5, and of the file system."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import h5py

from emboundary.service.errors import InputError, first_line
from emboundary.service.volumes.storage import is_url, open_url

_DEEPEST = 64


def refuse_links_in_hdf5(where: str, file: str, inside: str) -> None:
    """Refuse a dataset whose voxels are, or whose name leads, in another file.

    Args:
        where: what the client called it, for messages.
        file: path or URL of the HDF5 file.
        inside: the dataset's path inside the file.

    Raises:
        InputError: an external link on the way, a virtual or external dataset, or a file that cannot be read.
    """
    try:
        with ExitStack() as stack:
            opened = stack.enter_context(open_url(file)[0]) if is_url(file) else file
            found = _follow(where, stack.enter_context(h5py.File(opened, "r")), inside)
            if isinstance(found, h5py.Dataset) and (found.is_virtual or found.external):
                raise _elsewhere(where)
    except InputError:
        raise
    except Exception as error:  # damaged metadata fail anywhere inside h5py
        raise InputError(
            f"input is {where!r}, which cannot be opened as HDF5: {first_line(error)}; copy or export it again"
        ) from error


def _follow(where: str, file: h5py.File, inside: str) -> Any:
    """Follow a path from link to link without leaving the file; None where it ends nowhere."""
    node: Any = file
    ahead = [name for name in reversed(inside.split("/")) if name not in ("", ".")]
    for _ in range(_DEEPEST):
        if not ahead or not isinstance(node, h5py.Group):
            return node
        name = ahead.pop()
        match node.get(name, getlink=True):
            case h5py.ExternalLink():
                raise _elsewhere(where)
            case h5py.SoftLink(path=path):
                if path.startswith("/"):
                    node = file
                ahead += [part for part in reversed(path.split("/")) if part not in ("", ".")]
            case h5py.HardLink():
                node = node[name]
            case _:
                return None
    raise InputError(f"input is {where!r}, which leads through more than {_DEEPEST} links; name the dataset itself")


def _elsewhere(where: str) -> InputError:
    return InputError(
        f"input is {where!r}, which keeps its voxels in another file; for a job they must be in the file itself: "
        "rewrite it with h5repack, or name that file"
    )


def refuse_links_out(folder: Path, holds: Callable[[Path], bool]) -> None:
    """Refuse a folder in which a link of the file system leads to a place that is not held.

    Raises:
        InputError: there is one, or a folder that cannot be listed.
    """
    pending = [folder]
    seen = {folder.resolve()}
    while pending:
        here = pending.pop()
        try:
            entries = list(os.scandir(here))
        except OSError as error:
            raise InputError(f"{folder} cannot be listed: {error.strerror}; check its permissions") from error
        for entry in entries:
            if entry.is_symlink():
                target = resolved(Path(entry.path))
                if target is None or not holds(target):
                    raise InputError(
                        f"{folder} holds a link, {entry.name!r}, that leads out of the data roots; copy what it "
                        "leads to, or ask the operator to make that a data root"
                    )
                if target.is_dir() and target not in seen:
                    seen.add(target)
                    pending.append(target)
            elif entry.is_dir(follow_symlinks=False):
                pending.append(Path(entry.path))


def resolved(path: Path) -> Path | None:
    """Where a path leads, through all links; None where it leads nowhere: a loop of links, a name that is too long."""
    try:
        found = path.resolve()
        # A loop raises RuntimeError before Python 3.13, and from then on stays in what is found, as a link.
        loop = any(part.is_symlink() for part in (found, *found.parents))
    except (OSError, RuntimeError):
        return None
    return None if loop else found
