"""Maps on disk that look whole only when they are.

A map is written inside a hidden folder ``.NAME.partial`` beside its final place, made durable, and renamed in one
step by ``commit``.  What an earlier run left there, killed before its commit, is replaced.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from emboundary.model.geometry import Box, Triple
from emboundary.service.errors import OutputError
from emboundary.service.probabilities import Dtype, to_stored
from emboundary.service.volumes.axes import UNCALIBRATED, SpaceAxes

Map = NDArray[np.float32]


@dataclass(frozen=True)
class MapSpec:
    """What is to be stored.

    Attributes:
        shape: (z, y, x) in voxels.
        dtype: ``uint8`` stores round(255 p); floats store p.
        chunks: (z, y, x) of the parts that are stored at once, where the format has such.
        axes: name, scale, unit and origin of z, y and x.
        provenance: how the map was made, stored with it; JSON values.
    """

    shape: Triple
    dtype: Dtype = "uint8"
    chunks: Triple = (1, 512, 512)
    axes: SpaceAxes = UNCALIBRATED
    provenance: dict[str, Any] = field(default_factory=dict)

    def encode(self, probability: Map) -> NDArray[Any]:
        """Probabilities as they are stored."""
        return to_stored(probability, self.dtype)


class Output(ABC):
    """A map being written: blocks in any order, then ``commit``; without it nothing is left.

    Attributes:
        path: where the map will stand.
        replaces_leftover: whether an earlier run had left an unfinished map, which was removed.
    """

    def __init__(self, path: Path, spec: MapSpec, *, overwrite: bool = False) -> None:
        self.path = path
        self._spec = spec
        self._overwrite = overwrite
        self._open = ExitStack()
        self._place = _Place.take(path)
        self.replaces_leftover = self._place.clear()
        try:
            with storing(path):
                self._begin(self._place.data)
        except BaseException:
            self.abort()
            raise

    def write(self, box: Box, probability: Map) -> None:
        """Store one block of float32 probabilities of shape ``box.shape``, counted from the map's origin.

        Raises:
            OutputError: the file system refuses, e.g. because it is full.
        """
        with storing(self.path):
            self._store(box, self._spec.encode(probability))

    def commit(self) -> None:
        """Make the map durable and give it its name.

        Raises:
            OutputError: the file system refuses, or something else has taken the name meanwhile.
        """
        with storing(self.path):
            self._finish()
            self._open.close()
            _sync_all(self._place.data)
            self._place.publish(overwrite=self._overwrite)
        self._place.discard()

    def abort(self) -> None:
        """Remove what has been written; after ``commit`` there is nothing to remove."""
        self._open.close()
        self._place.discard()

    @abstractmethod
    def _begin(self, data: Path) -> None:
        """Create an empty map at a path; what is to be closed goes to ``self._open``."""

    @abstractmethod
    def _store(self, box: Box, encoded: NDArray[Any]) -> None:
        """Store one encoded block."""

    @abstractmethod
    def _finish(self) -> None:
        """Write what is still held back."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turn errors of the file system into one line that names the map."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutputError(f"no space left for {path}; free some, or give an OUTPUT on another disk") from error
        reason = error.strerror or error
        raise OutputError(f"{path} cannot be written: {reason}; check the folder's permissions") from error


@dataclass
class _Place:
    """The hidden folder in which one map is written, and the lock that keeps a second run out."""

    path: Path
    folder: Path
    lock: int

    @classmethod
    def take(cls, path: Path) -> _Place:
        """Create and lock the folder.

        Raises:
            OutputError: another run holds it, or the parent folder cannot be written to.
        """
        folder = path.parent / f".{path.name}.partial"
        with storing(path):
            while True:
                folder.mkdir(exist_ok=True)
                try:
                    lock = _lock(folder / "lock")
                except BlockingIOError:
                    raise OutputError(f"another run is writing {path}; wait for it, or give another OUTPUT") from None
                except FileNotFoundError:
                    continue  # the run before us removed its folder between two of our steps
                if lock is not None:
                    return cls(path, folder, lock)

    @property
    def data(self) -> Path:
        """The map before it has its name; the suffix is kept, because libraries look at it."""
        return self.folder / f"map{self.path.suffix}"

    @property
    def _replaced(self) -> Path:
        return self.folder / "replaced"

    def clear(self) -> bool:
        """Remove what a killed run left; put back a map that it was about to replace."""
        with storing(self.path):
            if self._replaced.exists() and not self.path.exists():
                self._replaced.rename(self.path)
            leftovers = [self.data, self._replaced]
            found = any(item.exists() for item in leftovers)
            for item in leftovers:
                _remove(item)
        return found

    def publish(self, *, overwrite: bool) -> None:
        """Rename the map to its final name."""
        if self.path.exists():
            if not overwrite:
                raise OutputError(f"{self.path} has appeared during the run; move it away, or give --overwrite")
            if self.path.is_dir() or self.data.is_dir():
                self.path.rename(self._replaced)  # a folder cannot be replaced in one step
        try:
            self.data.replace(self.path)
        except BaseException:
            if self._replaced.exists():
                self._replaced.rename(self.path)
            raise
        _sync(self.path.parent)

    def discard(self) -> None:
        """Remove the folder and let go of the lock; safe to repeat."""
        if self.lock < 0:
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self.lock)
        self.lock = -1


def _lock(path: Path) -> int | None:
    """Lock a file without waiting; None where it was removed before the lock was ours."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), path.stat()):
            return descriptor
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync_all(path: Path) -> None:
    """Wait until all that was written to the path's file system is on its disk.

    One call for a map of any number of chunks, where one ``fsync`` per file would take milliseconds each.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if libc.syncfs(descriptor) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
    finally:
        os.close(descriptor)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
