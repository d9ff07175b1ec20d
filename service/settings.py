"""What an operator may set for the HTTP service; what has no option comes from ``EMBOUNDARY_...``."""

from __future__ import annotations

from typing import Annotated

from pydantic import DirectoryPath, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from emboundary.model.repository import DEFAULT_MODEL, ZOO
from emboundary.service.engine import Device
from emboundary.service.run.tiling import DEFAULT_TILE
from emboundary.service.schemas import Limits

MEBIBYTE = 2**20
# A thin image costs its halo, not its bytes: this many voxels per byte of the body limit are computed at most.
_VOXELS_PER_BODY_BYTE = 4


class Settings(BaseSettings):
    """Settings of one service process.

    Attributes:
        model: name in the repository, or path, of the model that answers where a request names none.
        repository: folder of ``NAME/VERSION/model.onnx``; its other models are served too.
        device: where models run; ``cuda`` without a working GPU refuses to start.
        data_roots: folders whose volumes the server itself may open.
        tile: side of a write block in voxels; the memory of one inference grows with its square.
        max_body_bytes: largest request body in bytes, as sent and after decompression.
        max_waiting: requests for one model that are served or wait at once; more are answered 429.
        body_timeout_s: seconds within which a request body must have arrived.
        drain_s: seconds that requests in flight have to end after SIGTERM.

    Raises:
        pydantic.ValidationError: a value out of range, or a data root that is no folder.
    """

    model_config = SettingsConfigDict(env_prefix="EMBOUNDARY_", extra="forbid", frozen=True)

    model: str = DEFAULT_MODEL
    repository: DirectoryPath = ZOO
    device: Device = "auto"
    data_roots: tuple[DirectoryPath, ...] = ()
    tile: Annotated[int, Field(ge=1)] = DEFAULT_TILE
    max_body_bytes: Annotated[int, Field(ge=1)] = 64 * MEBIBYTE
    max_waiting: Annotated[int, Field(ge=1)] = 16
    body_timeout_s: Annotated[float, Field(gt=0)] = 60.0
    drain_s: Annotated[int, Field(ge=0)] = 30

    @property
    def limits(self) -> Limits:
        """What a request may hold and cost."""
        return Limits(
            max_body_bytes=self.max_body_bytes,
            max_computed_voxels=self.max_body_bytes * _VOXELS_PER_BODY_BYTE,
            max_waiting=self.max_waiting,
            tile=self.tile,
        )
