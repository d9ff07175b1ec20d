"""Maps on disk, written block by block in any order, and gone on with after a kill.

An output knows one file or folder, wherever that stands; its name, its lock and its ledger are those of ``place``.
"""

from __future__ import annotations

import ctypes
import os
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from emboundary.model.geometry import Box, Triple
from emboundary.service.errors import OutputError, UsageError, first_line
from emboundary.service.probabilities import Dtype, to_stored
from emboundary.service.volumes.axes import UNCALIBRATED, SpaceAxes
from emboundary.service.volumes.layout import Level, default_chunk, plan_levels
from emboundary.service.volumes.place import final_path, storing

OmeZarr = Literal["0.4", "0.5"]


@dataclass(frozen=True)
class MapSpec:
    """What is to be stored.

    Attributes:
        shape: (z, y, x) in voxels.
        dtype: ``uint8`` stores round(255 p); floats store p.
        axes: name, scale, unit and origin of z, y and x.
        provenance: how the map was made, stored with it; JSON values.
        levels: resolutions, of which formats without a pyramid store the first; without any, one level of default
            chunks.
        ome_zarr: version of a ``.zarr``: 0.5 is Zarr v3, 0.4 is Zarr v2, which knows no shards.

    Raises:
        UsageError: shards in OME-Zarr 0.4.
    """

    shape: Triple
    dtype: Dtype = "uint8"
    axes: SpaceAxes = UNCALIBRATED
    provenance: dict[str, Any] = field(default_factory=dict)
    levels: tuple[Level, ...] = ()
    ome_zarr: OmeZarr = "0.5"

    def __post_init__(self) -> None:
        if not self.levels:
            chunk = default_chunk(self.shape, self.axes)
            object.__setattr__(self, "levels", plan_levels(self.shape, self.axes, chunk, None, pyramid=False))
        assert self.levels[0].shape == self.shape
        if self.ome_zarr == "0.4" and any(level.shard is not None for level in self.levels):
            shard = ",".join(map(str, self.levels[0].unit))
            raise UsageError(f"shard is {shard}, but OME-Zarr 0.4 knows no shards: leave --shard out, or ask for 0.5")

    def encode(self, probability: NDArray[np.float32]) -> NDArray[Any]:
        """Probabilities as they are stored."""
        return to_stored(probability, self.dtype)


class Output(ABC):
    """A map being written; ``write`` may be called from several threads for blocks that share no unit.

    A context, at whose end it is closed as it is.

    Attributes:
        levels: the resolutions that this format stores.
    """

    levels: tuple[Level, ...]

    def __init__(self, data: Path, spec: MapSpec) -> None:
        self._data = data
        self._path = final_path(data)
        self._spec = spec
        self.levels = spec.levels

    def write(self, box: Box, encoded: NDArray[Any], level: int = 0) -> None:
        """Store one block, encoded; safe only after the next ``flush``.

        Args:
            box: whole units of the level, or cut by the map's end; counted from the map's origin, in voxels of the
                level.
            encoded: (z, y, x) voxels of the map's type.
            level: which resolution.

        Raises:
            OutputError: the file system refuses, e.g. because it is full.
        """
        assert covers_units(box, self.levels[level]), f"{box} would tear a unit of {self.levels[level]}"
        assert encoded.shape == box.shape
        assert encoded.dtype == self._spec.dtype
        with storing(self._path, kept=True):
            self._store(box, encoded, level)

    def read(self, box: Box, level: int = 0) -> NDArray[Any]:
        """Voxels that have been written, encoded; zero where nothing has been.

        Raises:
            OutputError: the file system refuses, or what is there is damaged.
        """
        try:
            with storing(self._path, kept=True):
                return self._load(box, level)
        except (OutputError, MemoryError):
            raise
        except Exception as error:  # every codec has exceptions of its own
            raise OutputError(damaged(self._path, self._data, first_line(error))) from error

    def flush(self) -> None:
        """Return when everything that has been written is on the disk.

        Raises:
            OutputError: the disk refuses; then some of what was written since the last flush may be lost.
        """
        with storing(self._path, kept=True):
            self._sync()

    def finish(self, provenance: dict[str, Any]) -> None:
        """Complete the map with its final provenance, make it durable, and close it.

        Finishing again after a kill gives the same bytes.

        Raises:
            OutputError: the file system refuses.
        """
        with storing(self._path, kept=True):
            self._complete(provenance)
            sync_all(self._data.parent)
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Let go of files; what has been written can be gone on with.  Safe to repeat."""

    @abstractmethod
    def _store(self, box: Box, encoded: NDArray[Any], level: int) -> None: ...

    @abstractmethod
    def _load(self, box: Box, level: int) -> NDArray[Any]: ...

    @abstractmethod
    def _sync(self) -> None: ...

    @abstractmethod
    def _complete(self, provenance: dict[str, Any]) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def covers_units(box: Box, level: Level) -> bool:
    """Whether a box is made of whole units, but for those that the map's end cuts."""
    return Box.of_shape(level.shape).contains(box) and all(
        start % unit == 0 and (stop % unit == 0 or stop == extent)
        for start, stop, unit, extent in zip(box.start, box.stop, level.unit, level.shape, strict=True)
    )


def damaged(path: Path, data: Path, reason: str) -> str:
    """What to say where a map that was begun cannot be gone on with."""
    return f"{path} was begun, but cannot be gone on with: {reason}; remove {data.parent} to start over"


def sync_all(path: Path) -> None:
    """Wait until all that was written to a path's file system is on its disk.

    One call for a map of any number of chunks, where one ``fsync`` per file would take milliseconds each.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        sync_file_system(descriptor)
    finally:
        os.close(descriptor)


def sync_file_system(descriptor: int) -> None:
    """Wait until all that was written to the file system of an open file is on its disk.

    Raises:
        OSError: it refuses, or failed to write something since the file was opened.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syncfs(descriptor) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
