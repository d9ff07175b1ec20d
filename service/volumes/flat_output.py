"""Maps whose voxels stand in one piece of one file, at an offset: what TIFF, HDF5 and PNG outputs share.

        map.SUFFIX   [ head: the format's own | voxels, z slowest | tail: the format's own ]
        frame.npz    offset of the voxels, and the head and tail as they were when the file was created

A library creates the file and is done with it; voxels are written with ``pwrite``, not through a memory map, on which
a full disk would end the process, nor through the library, whose file a kill could leave in pieces.  The library
opens the file once more at the end; a kill at that moment is undone from the frame.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emboundary.model.geometry import Box
from emboundary.service.errors import OutputError
from emboundary.service.volumes.output import MapSpec, Output, damaged
from emboundary.service.volumes.place import storing


@dataclass(frozen=True)
class Frame:
    """What stands around the voxels in the file as it was created."""

    offset: int
    head: bytes
    tail: bytes

    @classmethod
    def around(cls, file: Path, offset: int, size: int) -> Frame:
        """Read the frame of a file whose voxels are ``size`` bytes from an offset on."""
        with file.open("rb") as stream:
            head = stream.read(offset)
            stream.seek(offset + size)
            return cls(offset, head, stream.read())

    @classmethod
    def load(cls, path: Path) -> Frame:
        """Read what ``save`` stored."""
        with np.load(path) as stored:
            return cls(int(stored["offset"]), stored["head"].tobytes(), stored["tail"].tobytes())

    def save(self, path: Path) -> None:
        """Store it in one step."""
        temporary = path.with_suffix(".new.npz")
        head, tail = (np.frombuffer(part, np.uint8) for part in (self.head, self.tail))
        np.savez(temporary, offset=np.int64(self.offset), head=head, tail=tail)
        temporary.replace(path)

    def restore(self, file: Path, size: int) -> None:
        """Give a file of voxels of ``size`` bytes the head, the tail and the length that it was created with."""
        with file.open("r+b") as stream:
            stream.truncate(self.offset + size + len(self.tail))
            stream.write(self.head)
            stream.seek(self.offset + size)
            stream.write(self.tail)


class FlatOutput(Output):
    """One file of voxels in one piece, of which any part can be written in any order."""

    def __init__(self, data: Path, spec: MapSpec, *, resume: bool) -> None:
        super().__init__(data, spec)
        self.levels = spec.levels[:1]
        self._descriptor = -1
        self._dtype = np.dtype(spec.dtype).newbyteorder("<")
        with storing(self._path, kept=resume):
            if not resume:
                self._frame_path.unlink(missing_ok=True)
                Frame.around(self._voxels, self._create(self._voxels), self._size).save(self._frame_path)
            self._frame = self._open_frame()
            self._descriptor = os.open(self._voxels, os.O_RDWR | os.O_CLOEXEC)
            try:
                # A full disk shows now, not after hours.
                os.posix_fallocate(self._descriptor, 0, self._frame.offset + self._size)
            except BaseException:
                self.close()
                raise

    @property
    def _voxels(self) -> Path:
        """The file that holds the voxels."""
        return self._data

    @property
    def _frame_path(self) -> Path:
        return self._data.with_name("frame.npz")

    @property
    def _size(self) -> int:
        """Bytes of all voxels."""
        z, y, x = self._spec.shape
        return z * y * x * self._dtype.itemsize

    @abstractmethod
    def _create(self, file: Path) -> int:
        """Create a file for the whole map, sparse, and return where in it the voxels begin, in bytes."""

    @abstractmethod
    def _annotate(self, provenance: dict[str, Any]) -> None:
        """Store the final provenance in the file, or make the file from the voxels."""

    def _open_frame(self) -> Frame:
        if not self._frame_path.exists() or not self._voxels.exists():
            raise OutputError(damaged(self._path, self._data, "its unfinished map is gone"))
        return Frame.load(self._frame_path)

    def _store(self, box: Box, encoded: NDArray[Any], level: int) -> None:  # noqa: ARG002  # there is one level
        encoded = np.ascontiguousarray(encoded, self._dtype)
        for offset, piece in self._pieces(box, encoded):
            data = memoryview(piece.data).cast("B")
            while data:
                written = os.pwrite(self._descriptor, data, offset)
                data, offset = data[written:], offset + written

    def _load(self, box: Box, level: int) -> NDArray[Any]:  # noqa: ARG002
        block = np.empty(box.shape, self._dtype)
        for offset, piece in self._pieces(box, block):
            data = memoryview(piece.data).cast("B")
            while data:
                count = os.preadv(self._descriptor, [data], offset)
                if count == 0:
                    raise OSError(f"{self._voxels} ends at byte {offset}")
                data, offset = data[count:], offset + count
        return block.astype(self._spec.dtype, copy=False)

    def _pieces(self, box: Box, block: NDArray[Any]) -> list[tuple[int, NDArray[Any]]]:
        """The parts of a block that stand in one piece, each with its place in the file."""
        _, height, width = self._spec.shape
        item = self._dtype.itemsize
        (z0, top, left), (_, rows, columns) = box.start, box.shape
        if (rows, columns) == (height, width):
            return [(self._frame.offset + z0 * height * width * item, block)]
        pieces = []
        for z, section in enumerate(block, z0):
            first = self._frame.offset + ((z * height + top) * width + left) * item
            if columns == width:  # rows as wide as the map follow each other without a gap
                pieces.append((first, section))
            else:
                pieces += [(first + y * width * item, row) for y, row in enumerate(section)]
        return pieces

    def _sync(self) -> None:
        os.fdatasync(self._descriptor)

    def _complete(self, provenance: dict[str, Any]) -> None:
        self._sync()
        self._frame.restore(self._voxels, self._size)
        self._annotate(provenance)

    def close(self) -> None:
        """Let go of the file; safe to repeat."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
