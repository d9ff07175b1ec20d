"""What a reader of one file format hands over: an array that reads parts of itself, and the names of its axes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from emboundary.service.volumes.axes import Axis

Key = tuple[slice | int, ...]


class Sliceable(Protocol):
    """An array on disk: reading a part reads no more than the chunks that hold it; several threads may read at once."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def __getitem__(self, key: Key, /) -> Any: ...


_UNCHUNKED_VOXELS = 1 << 22


def unchunked(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Chunks for an array of which any part can be read alone: whole rows, some 4 million voxels of one section."""
    if len(shape) < 2:
        return shape
    rows = max(1, min(shape[-2], _UNCHUNKED_VOXELS // max(1, shape[-1])))
    return (1,) * (len(shape) - 2) + (rows, shape[-1])


def nothing_to_close() -> None:
    """For arrays that hold nothing open."""


@dataclass(frozen=True)
class Source:
    """An opened array, whatever its format.

    Attributes:
        where: what the user called it, for messages.
        array: the voxels.
        chunks: shape of the parts that are read at once, one extent per axis of the array.
        axes: one per axis of the array; without a name where the file gives none.
        close: frees what is held open.
        decoded: shape of the part that must be decoded in one piece; None where any part can be read alone.
        fill_value: of voxels that were never written.
        state: what changes when the file changes, as JSON; found without reading a voxel.
    """

    where: str
    array: Sliceable
    chunks: tuple[int, ...]
    axes: tuple[Axis, ...]
    close: Callable[[], None] = nothing_to_close
    decoded: tuple[int, ...] | None = None
    fill_value: float = 0
    state: Mapping[str, Any] = field(default_factory=dict)
