"""Where the bytes of a volume are: a folder or a file, on this machine or behind a URL that fsspec knows."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

import fsspec

from emboundary.service.errors import InputError, first_line
from emboundary.service.volumes.bounds import DOCUMENT_BYTES, show_bytes

# Packages behind a URL's scheme that come with an extra of ours.
_EXTRAS = {"s3": ("s3fs", "s3"), "s3a": ("s3fs", "s3"), "gs": ("gcsfs", "gs"), "gcs": ("gcsfs", "gs")}
# What file systems call the state of a file; a file whose entries are all the same is the same file.
_STATE = ("size", "ETag", "etag", "LastModified", "last_modified", "mtime", "md5Hash", "crc32c", "generation")
# Headers are read in small parts, voxels in parts of their own size.
_READ_AHEAD = 1 << 20
_FORBIDDEN = 403


def is_url(where: str) -> bool:
    """Whether a volume is named by a URL."""
    return "://" in where


class Folder(Protocol):
    """The files of one folder; names may have slashes, for files further down."""

    where: str

    def read(self, name: str) -> bytes | None:
        """A small file whole; None where there is none.

        Raises:
            InputError: larger than a document of metadata can be, or unreadable.
        """

    def open(self, name: str) -> BinaryIO: ...

    def names(self) -> list[str]:
        """The folder's files; empty where the folder does not exist or cannot be listed."""

    def state(self, name: str) -> dict[str, Any]:
        """What changes when the file changes, as JSON."""


class LocalFolder:
    """A folder on this machine."""

    def __init__(self, path: Path) -> None:
        self.where = str(path)
        self._path = path

    def read(self, name: str) -> bytes | None:
        path = self._path / name
        try:
            with path.open("rb") as file:
                return _checked(str(path), file.read(DOCUMENT_BYTES + 1))
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        except (OSError, ValueError) as error:
            raise InputError(f"{path} cannot be read: {first_line(error)}; check its permissions") from error

    def open(self, name: str) -> BinaryIO:
        return (self._path / name).open("rb")

    def names(self) -> list[str]:
        return [entry.name for entry in os.scandir(self._path) if entry.is_file()]

    def state(self, name: str) -> dict[str, Any]:
        return file_state(self._path / name)


class RemoteFolder:
    """A folder behind a URL."""

    def __init__(self, url: str) -> None:
        self.where = url
        self._system, self._path = file_system(url)

    def read(self, name: str) -> bytes | None:
        try:
            return _checked(f"{self.where}/{name}", self._system.cat_file(self._below(name)))
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        except InputError:
            raise
        except Exception as error:  # every protocol has exceptions of its own
            if isinstance(error, PermissionError) or getattr(error, "status", None) == _FORBIDDEN:
                return None  # so do stores answer that do not let us list what they have
            raise InputError(
                f"{self.where}/{name} cannot be read: {first_line(error)}; check the URL and your access"
            ) from error

    def open(self, name: str) -> BinaryIO:
        return cast(BinaryIO, self._system.open(self._below(name), "rb", block_size=_READ_AHEAD))

    def names(self) -> list[str]:
        try:
            entries = self._system.ls(self._path, detail=True)
        except (FileNotFoundError, NotADirectoryError, NotImplementedError):
            return []
        except Exception as error:
            raise InputError(f"{self.where} cannot be listed: {first_line(error)}; check your access") from error
        return [str(entry["name"]).rpartition("/")[2] for entry in entries if entry.get("type") == "file"]

    def state(self, name: str) -> dict[str, Any]:
        return remote_state(self._system, self._below(name))

    def _below(self, name: str) -> str:
        return f"{self._path.rstrip('/')}/{name}"


def open_url(url: str) -> tuple[BinaryIO, dict[str, Any]]:
    """Open the file behind a URL, and say what changes when it changes.

    Raises:
        FileNotFoundError: nothing there, or a folder.
        InputError: unreachable, or of a scheme that is not known here.
    """
    system, path = file_system(url)
    try:
        return cast(BinaryIO, system.open(path, "rb", block_size=_READ_AHEAD)), remote_state(system, path)
    except (FileNotFoundError, IsADirectoryError):
        raise FileNotFoundError(url) from None
    except Exception as error:  # every protocol has exceptions of its own
        raise InputError(f"{url} cannot be opened: {first_line(error)}; check the URL and your access") from error


def file_system(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a URL, and the URL's path in it.

    Raises:
        InputError: a scheme that fsspec does not know, or whose package is missing.
    """
    try:
        system, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise missing_package(url, error) from error
    except Exception as error:
        raise InputError(f"{url} cannot be opened: {first_line(error)}; check the URL") from error
    return system, str(path)


def missing_package(url: str, error: ImportError) -> InputError:
    """The error for a URL whose package is not installed."""
    scheme = url.partition("://")[0].rpartition("::")[2]
    if scheme not in _EXTRAS:
        return InputError(f"{url} cannot be opened: {first_line(error)}")
    package, extra = _EXTRAS[scheme]
    return InputError(
        f"{url} cannot be opened: {scheme}:// needs the package {package}, which is not installed: "
        f"pip install 'emboundary[{extra}]'"
    )


def file_state(path: Path) -> dict[str, Any]:
    """Size and time of a file's last change."""
    state = path.stat()
    return {"size": state.st_size, "mtime_ns": state.st_mtime_ns}


def remote_state(system: fsspec.AbstractFileSystem, path: str) -> dict[str, Any]:
    """What a remote file system tells of a file's state."""
    found = system.info(path)
    return {key: value if isinstance(value, int) else str(value) for key, value in found.items() if key in _STATE}


def digest(documents: Mapping[str, bytes]) -> str:
    """One sha256 of several documents and their names."""
    return _digest(part for name in sorted(documents) for part in (name.encode(), documents[name]))


def _digest(parts: Iterable[bytes]) -> str:
    total = hashlib.sha256()
    for part in parts:
        total.update(hashlib.sha256(part).digest())
    return total.hexdigest()


def _checked(where: str, content: bytes) -> bytes:
    if len(content) > DOCUMENT_BYTES:
        raise InputError(
            f"{where} has more than {show_bytes(DOCUMENT_BYTES)}; metadata must be smaller: is this the right folder?"
        )
    return content
