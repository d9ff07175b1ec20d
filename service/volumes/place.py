"""The hidden folder ``.NAME.partial`` beside OUTPUT: a map stands there, with its ledger, until it is whole.

        folder/NAME                     OUTPUT, which appears in one step: ``publish``
        folder/.NAME.partial/lock       held by the run that is writing
                             ledger     which blocks are stored
                             map.SUFFIX the map

A run that is killed leaves the folder, and another one that takes the place goes on from there.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from emboundary.service.errors import OutputError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM)


@contextmanager
def storing(path: Path, *, kept: bool = False) -> Iterator[None]:
    """Turn errors of the file system into one line that names the map and says what to do.

    Args:
        path: OUTPUT.
        kept: whether a run is under way, which the same command goes on with; otherwise another OUTPUT may help.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise OutputError(f"{path} cannot be written: {reason}; {_remedy(error.errno, kept=kept)}") from error


def _remedy(code: int | None, *, kept: bool) -> str:
    if kept:
        cure = "check the disk"
        if code in _FULL:
            cure = "free some space"
        elif code in _FORBIDDEN:
            cure = "make the folder writable again"
        return f"{cure} and give the same command again"
    if code in _FULL:
        return "free some space, or give an OUTPUT on another disk"
    if code in _FORBIDDEN:
        return "give an OUTPUT in a folder that you may write to, or change its permissions"
    return "check the disk, and the folder's permissions"


def final_path(data: Path) -> Path:
    """OUTPUT, for messages about a map that still stands in its hidden folder; any other path as it is."""
    name = data.parent.name
    if name.startswith(".") and name.endswith(".partial"):
        return data.parent.parent / name.removeprefix(".").removesuffix(".partial")
    return data


@dataclass
class Place:
    """The hidden folder in which one map is written, and the lock that keeps a second run out.

    A context: at its end the lock is released, and unless ``publish`` or ``discard`` was called the folder stays as it
    is, for a run that goes on.
    """

    path: Path
    folder: Path
    _lock: int

    @classmethod
    def take(cls, path: Path) -> Place:
        """Create the folder, or enter the one that a killed run left, and lock it.

        Raises:
            OutputError: another run holds it, or the parent folder cannot be written to.
        """
        folder = _folder(path)
        with storing(path, kept=folder.exists()):
            while True:
                folder.mkdir(exist_ok=True)
                try:
                    lock = _lock(folder / "lock")
                except BlockingIOError:
                    raise OutputError(f"another run is writing {path}; wait for it, or give another OUTPUT") from None
                except FileNotFoundError:
                    continue  # the run before us removed its folder between two of our steps
                if lock is not None:
                    break
            place = cls(path, folder, lock)
            try:
                place._mend()
            except BaseException:
                place.release()
                raise
            return place

    @property
    def data(self) -> Path:
        """The map before it has its name; the suffix is kept, because libraries look at it."""
        return self.folder / f"map{self.path.suffix}"

    @property
    def ledger(self) -> Path:
        """Which run this is, and which of its blocks are stored."""
        return self.folder / "ledger.jsonl"

    @property
    def _replaced(self) -> Path:
        return self.folder / "replaced"

    def _mend(self) -> None:
        """Finish, or undo, what a run did that was killed while it gave its map the name."""
        if not self._replaced.exists():
            return
        if self.path.exists():
            remove(self._replaced)
        else:
            self._replaced.rename(self.path)

    def publish(self, *, overwrite: bool) -> None:
        """Give the map its name, durably, and remove the folder; the map must be finished.

        Raises:
            OutputError: something else has taken the name meanwhile, or the file system refuses.
        """
        with storing(self.path, kept=True):
            if self.path.exists() or self.path.is_symlink():
                if not overwrite:
                    raise OutputError(
                        f"{self.path} has appeared during the run; move it away, then give the same command again"
                    )
                if self.path.is_dir() or self.data.is_dir():
                    self.path.rename(self._replaced)  # a folder cannot be replaced in one step
            try:
                self.data.replace(self.path)
            except BaseException:
                if self._replaced.exists():
                    self._replaced.rename(self.path)
                raise
            sync_folder(self.path.parent)
        for item in self.folder.iterdir():
            if item not in (self.ledger, self.folder / "lock"):
                remove(item)  # the ledger goes last: until then it says whose map has the name
        self.discard()

    @property
    def published(self) -> bool:
        """Whether a run was killed after its map had its name, and before this folder was gone."""
        return self.path.exists() and self.ledger.exists() and not self.data.exists()

    def discard(self) -> None:
        """Remove the folder and release the lock; safe to repeat."""
        if self._lock >= 0:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.release()

    def release(self) -> None:
        """Release the lock and leave the folder as it is; safe to repeat."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def is_begun(path: Path) -> bool:
    """Whether a run is writing OUTPUT, or has left a part of it to go on with."""
    return _folder(path).exists()


def was_published(path: Path) -> bool:
    """Whether a run gave OUTPUT its name, and was killed before it had removed its folder and the ledger in it."""
    return Place(path, _folder(path), -1).published


def clear_published(path: Path) -> None:
    """Remove what is left of the folder of a run whose map has its name, once its ledger is gone."""
    folder = _folder(path)
    unfinished = (folder / "ledger.jsonl").exists() or (folder / f"map{path.suffix}").exists()
    if not path.exists() or not (folder / "lock").exists() or unfinished:
        return
    try:
        place = Place.take(path)
    except OutputError:
        return  # a run holds it, or it cannot be removed: both show when it is written to
    with place:
        if path.exists() and not place.data.exists() and not place.ledger.exists():
            place.discard()


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that it holds; nothing there is fine."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _folder(path: Path) -> Path:
    return path.parent / f".{path.name}.partial"


def _lock(path: Path) -> int | None:
    """Lock a file without waiting; None where it was removed before the lock was ours."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), path.stat()):
            return descriptor
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None
