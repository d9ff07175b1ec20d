"""Networks that can map a volume: one in this process, or (in the client) one behind a URL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from emboundary.model.geometry import Box, Footprint, Readable, Triple, read_reflected
from emboundary.service.engine import Engine, ModelEngine
from emboundary.service.preparing.intensity import Intensity
from emboundary.service.probabilities import Dtype
from emboundary.service.run.computing import Loaded, NetworkComputation, Pieces
from emboundary.service.run.inference import Map, infer, predict_box
from emboundary.service.run.tiling import BLOCK_BYTES, DEFAULT_TILE, Tiling

VoxelSize = tuple[float, float, float]

# Encoded bytes of one block; a GPU's large tiles want large blocks, and such hosts have the memory.
_BLOCK_BYTES = {"cpu": BLOCK_BYTES, "cuda": 4 * BLOCK_BYTES}


class Predictor(Protocol):
    """A network, here or elsewhere."""

    @property
    def footprint(self) -> Footprint:
        """Halo and stride."""
        ...

    @property
    def trained_voxel_sizes_nm(self) -> tuple[VoxelSize, ...]:
        """Voxel sizes (z, y, x) in nm that it was trained on."""
        ...

    @property
    def workers(self) -> int:
        """How many tiles it is best given at a time."""
        ...

    def plan(
        self, shape: Triple, unit: Triple, dtype: np.dtype[Any], tile: int | None, *, output_bytes: int, scale: float
    ) -> Tiling:
        """Cut a map.

        Args:
            shape: of the map, in voxels.
            unit: in which the output is stored.
            dtype: of the voxels that are read.
            tile: wanted side of a tile; None: what suits the network.
            output_bytes: of one voxel that is stored.
            scale: the network sees this many pixels for one of the volume, along y or x, whichever has more.
        """
        ...

    def bind(
        self, volume: Readable, intensity: Intensity, fill: float | None, dtype: Dtype = "float32"
    ) -> NetworkComputation:
        """The computation of one volume's map.

        Args:
            volume: what the network sees.
            intensity: statistics to normalise by.
            fill: probability for constant tiles.
            dtype: in which probabilities may be given, where that saves work: as they will be stored.
        """
        ...

    def identity(self) -> dict[str, Any]:
        """Everything about the network that decides about the map's bytes: JSON values."""
        ...

    def provenance(self) -> dict[str, Any]:
        """Which network computes, on what, and how: JSON values."""
        ...


@dataclass(frozen=True)
class LocalPredictor:
    """A network in this process."""

    engine: ModelEngine
    tta: bool = False

    @property
    def footprint(self) -> Footprint:
        """Halo and stride."""
        return self.engine.footprint

    @property
    def trained_voxel_sizes_nm(self) -> tuple[VoxelSize, ...]:
        """Voxel sizes (z, y, x) in nm that it was trained on."""
        return self.engine.description.trained_voxel_sizes_nm

    @property
    def workers(self) -> int:
        """How many tiles it is best given at a time."""
        # On a GPU one worker more than lanes has a tile in hand for the next; a CPU has no time of its own to win.
        return 1 if self.engine.device == "cpu" else self.engine.lanes + 1

    def plan(
        self, shape: Triple, unit: Triple, dtype: np.dtype[Any], tile: int | None, *, output_bytes: int, scale: float
    ) -> Tiling:
        """Cut a map; see ``Predictor``."""
        side = (self.engine.largest_tile() or DEFAULT_TILE) if tile is None else tile
        if scale > 1:
            side = min(side, max(1, int(side / scale)))  # a side below 1 is refused as it was given
        return Tiling.plan(
            shape,
            unit,
            self.footprint,
            side,
            input_bytes=dtype.itemsize,
            output_bytes=output_bytes,
            block_bytes=_BLOCK_BYTES[self.engine.device],
        )

    def bind(
        self, volume: Readable, intensity: Intensity, fill: float | None, dtype: Dtype = "float32"
    ) -> NetworkComputation:
        """The computation of one volume's map; see ``Predictor``."""
        return LocalComputation(self.engine, volume, intensity, tta=self.tta, fill=fill, dtype=dtype)

    def identity(self) -> dict[str, Any]:
        """Everything about the network that decides about the map's bytes."""
        return {
            "model_sha256": self.engine.description.sha256,
            "device": self.engine.device,
            "precision": self.engine.precision,
            "runtime": self.engine.runtime,
            "tta": self.tta,
        }

    def provenance(self) -> dict[str, Any]:
        """Model, version and hash, device, precision, runtime, and whether 8 orientations are averaged."""
        description = self.engine.description
        return {"model": description.name, "model_version": description.version, **self.identity()}


class LocalComputation(NetworkComputation):
    """An engine on one volume."""

    def __init__(
        self,
        engine: Engine,
        volume: Readable,
        intensity: Intensity,
        *,
        tta: bool = False,
        fill: float | None = None,
        dtype: Dtype = "float32",
    ) -> None:
        super().__init__(engine.footprint, fill)
        self._engine = engine
        self._volume = volume
        self._intensity = intensity
        self._tta = tta
        self._dtype: Dtype = dtype

    def load(self, write: Box) -> Loaded:
        """Read a tile and its halo, reflected where that leaves the volume."""
        return Loaded.of(write, read_reflected(self._volume, self.footprint.read_box(write)))

    def infer(self, loaded: Loaded) -> Pieces:
        """Probabilities by the engine, a few sections at a time."""
        return infer(self._engine, loaded.raw, loaded.write, self._intensity, tta=self._tta, dtype=self._dtype)

    def answer(self, image: NDArray[Any]) -> Map:
        """Probabilities of a constant image."""
        z, y, x = image.shape
        return predict_box(self._engine, image, Box.of_shape((z, y, x)), self._intensity, tta=self._tta)
