"""What the pipeline runs for each tile of a map: load it with its halo, then give its probabilities.

Wrappers add what a user asks for: a mask, or resampling to the voxel size that the network was trained on.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from emboundary.model.geometry import Box, Footprint, Readable
from emboundary.service.preparing.rescaling import Rescaled
from emboundary.service.run.inference import Map

# Probabilities as float32; or already as they are stored, where whoever binds a volume allows it.
Pieces = Iterator[tuple[Box, NDArray[Any]]]


@dataclass(frozen=True)
class Loaded:
    """A tile whose voxels are in memory.

    Attributes:
        write: the box that is wanted, counted from the volume's origin.
        raw: voxel values, with as much around the box as the computation needs.
        value: the one value that all of them have, where they do; such a tile needs no network.
    """

    write: Box
    raw: NDArray[Any]
    value: float | None

    @classmethod
    def of(cls, write: Box, raw: NDArray[Any]) -> Loaded:
        """Look whether the tile is constant; the first row tells for nearly all that are not."""
        first = raw.flat[0]
        constant = bool((raw[0, 0] == first).all() and (raw == first).all())
        return cls(write, raw, float(first) if constant else None)


class Computation(Protocol):
    """A map being computed; ``load`` and ``run`` are called from different threads, each from several."""

    def load(self, write: Box) -> Any:
        """Read what a tile needs.

        Raises:
            InputError: it cannot be read.
        """
        ...

    def run(self, loaded: Any) -> Pieces:
        """Probabilities of the tile, piece by piece."""
        ...

    def skips(self, loaded: Any) -> bool:
        """Whether the tile needs no network."""
        ...


class NetworkComputation(ABC):
    """A network on one volume; constant tiles get its own answer to that constant, or ``fill``.

    The answer to a constant repeats with the stride, and reflection at the volume's border leaves a constant as it
    is; so one answer per value and stride phase, computed once, is what the network would give (law 1).

    Attributes:
        footprint: halo and stride of the network.
        fill: probability for constant tiles in place of the network's answer; None: the answer.
    """

    def __init__(self, footprint: Footprint, fill: float | None = None) -> None:
        self.footprint = footprint
        self.fill = fill
        self._answers: dict[float, Map] = {}
        self._lock = threading.Lock()

    @abstractmethod
    def load(self, write: Box) -> Loaded:
        """Read what a tile needs."""

    @abstractmethod
    def infer(self, loaded: Loaded) -> Pieces:
        """Probabilities by the network."""

    @abstractmethod
    def answer(self, image: NDArray[Any]) -> Map:
        """Probabilities of a constant image (1, y, x) that is a volume of its own."""

    def run(self, loaded: Loaded) -> Pieces:
        """Probabilities of the tile, piece by piece."""
        if loaded.value is None:
            yield from self.infer(loaded)
        elif self.fill is not None:
            yield loaded.write, np.full(loaded.write.shape, self.fill, np.float32)
        else:
            yield loaded.write, self._repeated(loaded.write, self._answer(loaded))

    def skips(self, loaded: Loaded) -> bool:
        """Whether the tile needs no network."""
        return loaded.value is not None

    def _answer(self, loaded: Loaded) -> Map:
        """Answer to the tile's constant for every stride phase, (y, x)."""
        assert loaded.value is not None
        with self._lock:
            if loaded.value not in self._answers:
                one = np.full((1, *self.footprint.stride[1:]), loaded.raw.flat[0], loaded.raw.dtype)
                self._answers[loaded.value] = self.answer(one)[0]
            return self._answers[loaded.value]

    @staticmethod
    def _repeated(box: Box, phases: Map) -> Map:
        """The answers laid out over a box: pixel (y, x) has the phase (y mod stride, x mod stride)."""
        y, x = (np.arange(a, b) % n for a, b, n in zip(box.start[1:], box.stop[1:], phases.shape, strict=True))
        return np.broadcast_to(phases[np.ix_(y, x)], box.shape)


@dataclass(frozen=True)
class _Masked:
    loaded: Any
    write: Box
    inside: NDArray[np.bool_]


@dataclass(frozen=True)
class Masked:
    """A computation that gives ``fill`` wherever a mask is 0, and leaves out tiles where it is 0 throughout.

    Attributes:
        inner: gives the probabilities elsewhere.
        mask: array-like (z, y, x) of the volume's shape; 0 outside.
        fill: probability outside.
    """

    inner: Computation
    mask: Readable
    fill: float = 0.0

    def load(self, write: Box) -> _Masked:
        """Read the tile's part of the mask, and the tile where that is not empty."""
        inside = np.asarray(self.mask[write.slices]) != 0
        return _Masked(self.inner.load(write) if inside.any() else None, write, inside)

    def run(self, loaded: _Masked) -> Pieces:
        """Probabilities of the tile, piece by piece."""
        if loaded.loaded is None:
            yield loaded.write, np.full(loaded.write.shape, self.fill, np.float32)
            return
        for box, probability in self.inner.run(loaded.loaded):
            inside = loaded.inside[box.relative_to(loaded.write.start).slices]
            yield box, np.where(inside, probability, np.float32(self.fill))

    def skips(self, loaded: _Masked) -> bool:
        """Whether the tile needs no network."""
        return loaded.loaded is None or self.inner.skips(loaded.loaded)


@dataclass(frozen=True)
class RescaledComputation:
    """A computation on a resampled volume, whose map is brought back to the volume's own grid.

    Attributes:
        inner: gives probabilities of boxes of the resampled volume.
        rescaled: the resampled volume.
    """

    inner: Computation
    rescaled: Rescaled

    def load(self, write: Box) -> tuple[Box, Any]:
        """Read what the tile needs on the network's grid."""
        return write, self.inner.load(self.rescaled.needed(write))

    def run(self, loaded: tuple[Box, Any]) -> Pieces:
        """Probabilities of the tile, piece by piece; pieces are whole sections."""
        write, inner = loaded
        for box, probability in self.inner.run(inner):
            wanted = Box((box.start[0], *write.start[1:]), (box.stop[0], *write.stop[1:]))
            yield wanted, self.rescaled.restore(probability, box, wanted)

    def skips(self, loaded: tuple[Box, Any]) -> bool:
        """Whether the tile needs no network."""
        return self.inner.skips(loaded[1])
