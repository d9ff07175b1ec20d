"""Files that are whole or not there: what a killed run, or a full disk, leaves behind is never half a file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from emboundary.service.errors import OutputError


@contextmanager
def storing(path: Path) -> Iterator[Path]:
    """Give a place to write to that takes the name ``path`` once the block ends and its bytes are on the disk.

    The folder is made if it is missing.  If the block fails, whatever stood at ``path`` before still does.

    Raises:
        OutputError: the folder or the file cannot be written.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield partial
            with partial.open("rb+") as file:
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(
            f"{path} cannot be written: {reason}; give an output folder that can be written and has space left"
        ) from error


def store_text(path: Path, text: str) -> None:
    """Write a text in UTF-8, whole or not at all.

    Raises:
        OutputError: as ``storing``.
    """
    with storing(path) as partial:
        partial.write_text(text, encoding="utf-8")
