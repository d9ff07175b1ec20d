"""A local volume through ``/v1/predict``, block by block: what is sent carries its halo, what is kept does not.

The body of a block begins at a stride multiple of the volume's origin and ends where the volume ends or a halo
further than the block, so that the service, which reflects at the body's borders, gives inside the block what
it would give on the whole section (law 5).  The same holds in z for a model with context: the neighbouring sections
go along, and the service's maps of these are not kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emboundary.model.geometry import Box, Footprint, Readable, Triple
from emboundary.service.client.http import BoundaryClient
from emboundary.service.client.retrying import RefusedError
from emboundary.service.errors import RemoteError, UsageError
from emboundary.service.preparing.intensity import Intensity
from emboundary.service.probabilities import Dtype, from_stored
from emboundary.service.run.computing import Loaded, NetworkComputation
from emboundary.service.run.predictor import VoxelSize
from emboundary.service.run.tiling import Tiling
from emboundary.service.schemas import ModelReply

_TOO_MUCH = 413
# One tile is on its way while another is in the network.
DEFAULT_CONCURRENCY = 2
# An .npy header for three dimensions is 128 bytes.
_HEADER_BYTES = 1024
# Sections of a body for each of the context's on either side, beside those: the service maps the whole body, and so
# deep a one costs half as much again, where a single section amid its neighbours would cost three times as much.
_SECTIONS_PER_NEIGHBOUR = 4
# What one request may have computed, in voxels that the network sees: a few seconds of a CPU, so that several clients
# at a time stay within the service's time limit.
_VOXELS_AT_A_TIME = 1 << 22


@dataclass
class RemoteModel:
    """A model behind a service, as something that computes boxes of one volume.

    Attributes:
        client: the connection.
        model: the description and the limits that the service stated.
        tta: whether the service averages the 8 rotations and flips.
        dtype: what the probabilities are sent as; best what they will be stored as.
        concurrency: requests under way at a time.
        device: where the service ran the model, ``cpu`` or ``cuda``; None before the first answer.
    """

    client: BoundaryClient
    model: ModelReply
    tta: bool = False
    dtype: Dtype = "float32"
    concurrency: int = DEFAULT_CONCURRENCY
    device: str | None = field(default=None, init=False)

    @property
    def footprint(self) -> Footprint:
        """Halo and stride."""
        return self.model.footprint

    @property
    def trained_voxel_sizes_nm(self) -> tuple[VoxelSize, ...]:
        """Voxel sizes (z, y, x) in nm that it was trained on."""
        return self.model.trained_voxel_sizes_nm

    @property
    def workers(self) -> int:
        """Requests under way at a time."""
        return self.concurrency

    def bind(
        self,
        volume: Readable,
        intensity: Intensity,
        fill: float | None,
        dtype: Dtype = "float32",  # noqa: ARG002  # what is asked of the server has been chosen
    ) -> RemoteComputation:
        """The computation of one volume's map."""
        return RemoteComputation(self, volume, intensity, fill)

    def identity(self) -> dict[str, Any]:
        """Everything about the network that decides about the map's bytes, as far as the service tells."""
        return {
            "model_sha256": self.model.sha256,
            "precision": self.model.limits.precision,
            "tta": self.tta,
        }

    def provenance(self) -> dict[str, Any]:
        """Model, version and hash, where the service is, and whether 8 orientations are averaged."""
        network = {"model": self.model.name, "model_version": self.model.version, **self.identity()}
        return {**network, "service": self.client.url}

    def ask(self, images: NDArray[Any], intensity: Intensity) -> NDArray[np.float32]:
        """Probabilities of a stack (z, y, x).

        Raises:
            RemoteError: the service refused, stayed busy, stayed out of reach, or answered with another model.
        """
        try:
            answer = self.client.predict(
                images,
                model=self.model.name,
                version=self.model.version,
                tta=self.tta,
                dtype=self.dtype,
                intensity=intensity,
            )
        except RefusedError as error:
            if error.status != _TOO_MUCH:
                raise
            z, y, x = images.shape
            raise RemoteError(
                f"{self.client.url} refuses {z}x{y}x{x} voxels at a time: {error.detail}; give a --tile of half the "
                "side, or less"
            ) from error
        if answer.sha256 != self.model.sha256:
            raise RemoteError(
                f"{self.client.url} answered with another file of {self.model.name} {self.model.version} than it "
                "described when the run began, and a map must be of one model: run again with --overwrite"
            )
        self.device = answer.device
        return from_stored(answer.array)

    def plan(
        self, shape: Triple, unit: Triple, dtype: np.dtype[Any], tile: int | None, *, output_bytes: int, scale: float
    ) -> Tiling:
        """Cut a map into blocks, and those into tiles that the service accepts as bodies; see ``Predictor``.

        Raises:
            UsageError: a tile below 1, or one that makes bodies too large.
        """
        limits, footprint = self.model.limits, self.model.footprint
        halo, stride, around = footprint.halo[1], footprint.stride[1], 2 * footprint.context
        pixels = (limits.max_body_bytes - _HEADER_BYTES) // dtype.itemsize
        affordable = _VOXELS_AT_A_TIME // (8 if self.tta else 1)
        # A tile may begin anywhere between two stride multiples, and so reach one stride further on either side.
        largest = math.isqrt(pixels // footprint.channels) - 2 * halo - 5 * stride
        if tile is None:
            sections = max(1, min(_SECTIONS_PER_NEIGHBOUR * footprint.context, shape[0], unit[0])) + around
            quick = math.isqrt(affordable // sections) - 4 * halo - 2 * stride
            tile = min(max(quick, limits.tile // 2), 2 * limits.tile - 2 * halo, largest)
        if largest < 1 or tile > largest:
            side = tile + 2 * halo
            sent = f"{footprint.channels}x{side}x{side}" if around else f"{side}x{side}"
            raise UsageError(
                f"tile is {tile}; with its halo it would be sent as {sent} pixels of {dtype}, but the service accepts "
                f"{limits.max_body_bytes} bytes: give --tile {largest} or less"
            )
        if scale > 1:
            tile = min(tile, max(1, int(tile / scale)))
        tiling = Tiling.plan(shape, unit, footprint, tile, input_bytes=dtype.itemsize, output_bytes=output_bytes)
        _, y, x = tiling.tile
        body = math.ceil((y + 2 * halo) * scale + 2 * stride) * math.ceil((x + 2 * halo) * scale + 2 * stride)
        computed = math.ceil((y + 4 * halo) * scale + 2 * stride) * math.ceil((x + 4 * halo) * scale + 2 * stride)
        deepest = max(1, min(pixels // body, min(limits.max_computed_voxels, affordable) // computed) - around)
        return replace(tiling, tile=(min(tiling.tile[0], deepest), y, x))


class RemoteComputation(NetworkComputation):
    """A model behind a service on one volume."""

    def __init__(self, remote: RemoteModel, volume: Readable, intensity: Intensity, fill: float | None = None) -> None:
        super().__init__(remote.footprint, fill)
        self._remote = remote
        self._volume = volume
        self._intensity = intensity
        z, y, x = volume.shape
        self._whole = Box.of_shape((z, y, x))

    def load(self, write: Box) -> Loaded:
        """Read a tile and its halo, neighbouring sections among it, as far as they lie inside the volume."""
        return Loaded.of(write, np.asarray(self._volume[self._sent(write).slices]))

    def infer(self, loaded: Loaded) -> Iterator[tuple[Box, NDArray[np.float32]]]:
        """Probabilities by the service, all at once."""
        inside = loaded.write.relative_to(self._sent(loaded.write).start)
        yield loaded.write, self._remote.ask(loaded.raw, self._intensity)[inside.slices]

    def answer(self, image: NDArray[Any]) -> NDArray[np.float32]:
        """Probabilities of a constant image."""
        return self._remote.ask(image, self._intensity)

    def _sent(self, write: Box) -> Box:
        return self.footprint.read_box(write).intersect(self._whole)
