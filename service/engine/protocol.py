"""What everything else in the service sees of a network: images in, probabilities out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from emboundary.model.description import ModelDescription, Precision
from emboundary.model.geometry import Footprint
from emboundary.service.probabilities import Dtype

Images = NDArray[np.float32]
Device = Literal["auto", "cpu", "cuda"]


class Engine(Protocol):
    """Runs a network on whole, aligned images."""

    @property
    def footprint(self) -> Footprint:
        """Halo and stride of the network."""
        ...

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the K output channels."""
        ...

    def run(self, images: Images) -> Images:
        """Map (n, c, y, x), y and x multiples of the stride, to probabilities (n, K, y, x).

        The c channels are the section that is mapped amid its neighbours: ``footprint.channels``, 1 for most networks.
        """
        ...


class ModelEngine(Engine, Protocol):
    """An engine that runs a described model file on a known device."""

    @property
    def description(self) -> ModelDescription:
        """What the file promises."""
        ...

    @property
    def device(self) -> str:
        """``cpu`` or ``cuda``."""
        ...

    @property
    def precision(self) -> Precision:
        """The arithmetic."""
        ...

    @property
    def runtime(self) -> str:
        """What runs it, with its version: for the record."""
        ...

    @property
    def lanes(self) -> int:
        """How many runs go side by side."""
        ...

    def largest_tile(self) -> int | None:
        """Side in pixels, before the halo, of the largest tile that the device has memory for; None: any will do."""
        ...


@dataclass(frozen=True)
class Part:
    """Voxels of some sections as they are stored, and what is wanted of their map.

    Attributes:
        voxels: (n, c, y, x), y and x multiples of the stride, of any type of numbers.
        mean: voxels become images as ``(value - mean) / std``, in float64, rounded once to float32.
        std: above 0.
        rows: of the map that are wanted.
        columns: of the map that are wanted.
        dtype: the map is stored so; uint8: round(255 p).
    """

    voxels: NDArray[Any]
    mean: float
    std: float
    rows: slice
    columns: slice
    dtype: Dtype = "float32"

    def some(self, first: int, last: int) -> Part:
        """The sections from ``first`` up to, not including, ``last``."""
        return Part(self.voxels[first:last], self.mean, self.std, self.rows, self.columns, self.dtype)


@dataclass(frozen=True)
class Answer:
    """The map of a part.

    Attributes:
        stored: (n, K, rows, columns) of the part's type.
        finite: whether every probability was a number: uint8 cannot show it.
    """

    stored: NDArray[Any]
    finite: bool


@runtime_checkable
class Mapper(Protocol):
    """An engine that normalises, crops and stores on the device itself, so that stored bytes cross the bus."""

    def map(self, parts: Sequence[Part], side: tuple[int, int] | None = None) -> list[Answer]:
        """The maps of parts that share a run of the network.

        Args:
            parts: of one shape (c, y, x).
            side: (y, x) that images are padded to, with zeros below and to the right; None: theirs.
        """
        ...


@dataclass(frozen=True)
class IdentityEngine:
    """The network that changes nothing but values outside [0, 1]: for tests of tiling and for benchmarks.

    Of a section amid its neighbours it gives the section.
    """

    footprint: Footprint
    outputs: tuple[str, ...] = ("boundary",)

    def run(self, images: Images) -> Images:
        """Return the images' middle channel clipped to [0, 1], as a copy."""
        middle = self.footprint.context
        return np.clip(images[:, middle : middle + 1], 0, 1)
