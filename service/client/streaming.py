"""A local volume through ``/v1/predict``, block by block: what is sent carries its halo, what is kept does not.

The body of a block begins at a stride multiple of the volume's origin and ends where the volume ends or a halo
further than the block, so that the service, which reflects at the body's borders, gives inside the block what
it would give on the whole section (law 5).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emboundary.model.geometry import Box, Readable, Triple, round_up
from emboundary.service.client.http import Answer, BoundaryClient
from emboundary.service.errors import UsageError
from emboundary.service.inference import Compute
from emboundary.service.intensity import Intensity
from emboundary.service.probabilities import Dtype, from_stored
from emboundary.service.schemas import ModelReply
from emboundary.service.tiling import Tiling

# An .npy header for three dimensions is 128 bytes.
_HEADER_BYTES = 1024


@dataclass
class RemoteModel:
    """A model behind a service, as something that computes boxes of one volume.

    Attributes:
        client: the connection.
        model: the description and the limits that the service stated.
        tta: whether the service averages the 8 rotations and flips.
        dtype: what the probabilities are sent as; best what they will be stored as.
        device: where the service ran the model, ``cpu`` or ``cuda``; None before the first answer.
    """

    client: BoundaryClient
    model: ModelReply
    tta: bool = False
    dtype: Dtype = "float32"
    device: str | None = field(default=None, init=False)

    def compute(self, volume: Readable, intensity: Intensity) -> Compute:
        """The function that ``run_blocks`` wants: the probabilities of a write box of ``volume``.

        Raises, when called:
            RemoteError: the service refused, stayed busy, or stayed out of reach.
        """
        footprint = self.model.footprint
        z, y, x = volume.shape
        whole = Box.of_shape((z, y, x))

        def probabilities(write: Box) -> NDArray[np.float32]:
            sent = footprint.read_box(write).intersect(whole)
            answer = self._ask(np.asarray(volume[sent.slices]), intensity)
            return from_stored(answer.array[write.relative_to(sent.start).slices])

        return probabilities

    def provenance(self) -> dict[str, Any]:
        """Model, version and hash, where the service is, and whether 8 orientations are averaged."""
        return {
            "model": self.model.name,
            "model_version": self.model.version,
            "model_sha256": self.model.sha256,
            "service": self.client.url,
            "tta": self.tta,
        }

    def _ask(self, block: NDArray[Any], intensity: Intensity) -> Answer:
        answer = self.client.predict(block, model=self.model.name, tta=self.tta, dtype=self.dtype, intensity=intensity)
        self.device = answer.device
        return answer

    def plan(self, shape: Triple, dtype: np.dtype[Any], tile: int | None = None, depth: int = 1) -> Tiling:
        """Cut a map of ``shape`` (z, y, x) into blocks whose bodies the service accepts.

        Args:
            shape: of the map, in voxels.
            dtype: of the voxels that are sent.
            tile: wanted side of a block; None: such that a body fills whole tiles of the service, two by two.
            depth: wanted depth of a block.

        Raises:
            UsageError: a tile below 1, or one that makes bodies too large.
        """
        limits, footprint = self.model.limits, self.model.footprint
        halo, stride = footprint.halo[1], footprint.stride[1]
        pixels = (limits.max_body_bytes - _HEADER_BYTES) // dtype.itemsize
        # A block may begin anywhere between two stride multiples, and so reach one stride further.
        margin = 2 * halo + 2 * stride
        side = math.isqrt(pixels) - margin
        # Blocks are whole chunks, which are whole strides: at most one stride more for each 512 pixels.
        largest = max(side - stride * (side // 512 + 2), 1)
        if tile is None:
            tile = max(min(2 * limits.tile - 2 * halo, largest), 1)
        y, x = (round_up(n, stride) + margin for n in Tiling.plan(shape, footprint.stride, tile).block[1:])
        if y * x > pixels:
            raise UsageError(
                f"tile is {tile}; with its halo a block would be sent as {y}x{x} pixels of {dtype}, but the service "
                f"accepts {limits.max_body_bytes} bytes: give --tile {largest} or less"
            )
        deepest = min(pixels // (y * x), limits.max_computed_voxels // ((y + margin) * (x + margin)))
        return Tiling.plan(shape, footprint.stride, tile, depth=max(1, min(depth, deepest)))
