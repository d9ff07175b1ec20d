"""A volume (z, y, x) on disk, validated when opened, checked while it is read."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from emboundary.service.errors import InputError, first_line
from emboundary.service.volumes.axes import Axis, SpaceAxes, Triple, assign, calibrated
from emboundary.service.volumes.bounds import refuse_large, refuse_unaddressable
from emboundary.service.volumes.finite import refuse_non_finite
from emboundary.service.volumes.source import Key, Source
from emboundary.service.volumes.storage import is_url

_DTYPES = tuple(np.dtype(name) for name in ("uint8", "int8", "uint16", "int16", "float16", "float32", "float64"))


class Volume:
    """Grey values in a box of voxels, of which only the parts that are asked for are read.

    Attributes:
        where: what the user called it.
        shape: (z, y, x) in voxels; a single image has z = 1.
        dtype: of the voxels, in the machine's byte order.
        chunks: (z, y, x) of the parts that are read at once.
        axes: name, scale, unit and origin of z, y and x, as the file gives them, or with the size that was told.
        fill_value: of voxels that were never written.

    Args:
        source: the opened file.
        axes: as ``open_volume`` takes them.
        voxel_size_nm: as ``open_volume`` takes it.
        labels: whether voxels may be of any whole type, as those of masks and segmentations are.

    Raises:
        UsageError: axes that were told and do not fit, or a voxel size that is not three finite numbers above 0.
        InputError: axes that nobody names, colour, a type that is no grey value, an empty volume, or one whose parts
            are too large to be decoded.
    """

    def __init__(
        self,
        source: Source,
        axes: str | None = None,
        voxel_size_nm: tuple[float, float, float] | None = None,
        *,
        labels: bool = False,
    ) -> None:
        array = source.array
        grey = array.dtype.kind in "iuf" and array.dtype.newbyteorder("=") in _DTYPES
        if not (grey or (labels and array.dtype.kind in "biu")):
            raise InputError(
                f"{source.where} has voxels of type {array.dtype}; it must be one of "
                f"{', '.join(str(d) for d in _DTYPES)}: convert it"
            )
        if len(array.shape) < 2:
            raise InputError(f"{source.where} has shape {array.shape}; it must be an image (y, x) or a stack (z, y, x)")
        if 0 in array.shape:
            raise InputError(f"{source.where} has shape {array.shape}; it must hold at least one voxel")
        assignment = assign(source.where, array.shape, array.dtype, source.axes, axes)
        refuse_unaddressable(source.where, array.shape, array.dtype.itemsize)
        if source.decoded is not None:
            refuse_large(source.where, "chunk, strip or tile", source.decoded, array.dtype.itemsize)
        self._source = source
        self._places = assignment.places
        self.where = source.where
        self.axes: SpaceAxes = assignment.axes if voxel_size_nm is None else calibrated(assignment.axes, voxel_size_nm)
        for axis in self.axes:
            _refuse_senseless(source.where, axis)
        self.dtype = array.dtype.newbyteorder("=")
        self.shape: Triple = self._spatial(array.shape)
        self.chunks: Triple = self._spatial(source.chunks)
        self.fill_value: float = source.fill_value

    @property
    def voxel_size_nm(self) -> tuple[float, float, float] | None:
        """Extent of a voxel (z, y, x) in nm; None unless the file gives all three with units."""
        z, y, x = (axis.voxel_size_nm for axis in self.axes)
        return None if z is None or y is None or x is None else (z, y, x)

    def identity(self) -> dict[str, Any]:
        """What tells that a volume is the same when a run goes on with it, as JSON; no voxel is read."""
        return {
            "where": self._absolute(),
            "shape": list(self.shape),
            "dtype": str(self.dtype),
            "axes": [asdict(axis) for axis in self.axes],
            **self._source.state,
        }

    def _absolute(self) -> str:
        return self.where if is_url(self.where) else str(Path(self.where).absolute())

    def __getitem__(self, key: tuple[slice, slice, slice], /) -> NDArray[Any]:
        """Read a box; ``key`` is one slice each for z, y and x, with steps of 1.

        Raises:
            InputError: damaged data, or a value that is NaN or infinite, with its place.
        """
        parts: list[slice | int] = [0] * len(self._source.array.shape)
        places = []
        for place, part in zip(self._places, key, strict=True):
            if place is not None:
                parts[place] = part
                places.append(place)
        block = self._read(tuple(parts))
        stored = sorted(places)
        block = block.transpose([stored.index(place) for place in places])
        if len(places) == 2:  # a single image, without an axis z
            block = block[None][key[0]]
        z, y, x = (part.indices(extent)[0] for part, extent in zip(key, self.shape, strict=True))
        refuse_non_finite(block, (z, y, x))
        return block

    def _read(self, key: Key) -> NDArray[Any]:
        try:
            return np.asarray(self._source.array[key]).astype(self.dtype, copy=False)
        except MemoryError as error:
            raise InputError(
                f"{self.where} cannot be read at {_show(key)}: out of memory; give a smaller --tile, or, if it is "
                "damaged, copy or export it again"
            ) from error
        except Exception as error:  # every codec has exceptions of its own
            reason = first_line(error)
            raise InputError(
                f"{self.where} cannot be read at {_show(key)}: {reason}; it is damaged or truncated: copy or export it "
                "again"
            ) from error

    def _spatial(self, extents: tuple[int, ...]) -> Triple:
        z, y, x = self._places
        return (1 if z is None else extents[z], extents[y], extents[x])

    def close(self) -> None:
        """Close the file."""
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _refuse_senseless(where: str, axis: Axis) -> None:
    known = (1.0 if axis.scale is None else axis.scale, axis.origin)
    if not (all(math.isfinite(number) for number in known) and known[0] > 0):
        raise InputError(
            f"{where} gives axis {axis.name} a voxel size of {axis.scale} and an origin of {axis.origin}; they must be "
            "finite, the size above 0: mend its metadata, or give --voxel-size"
        )


def _show(key: Key) -> str:
    return ",".join(f"{part.start}:{part.stop}" if isinstance(part, slice) else str(part) for part in key)
