"""What an operator may set for the HTTP service; what has no option comes from ``EMBOUNDARY_...``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import DirectoryPath, Field, FilePath, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from emboundary.model.repository import DEFAULT_MODEL, ZOO
from emboundary.service.engine import Device
from emboundary.service.run.inference import BATCH_PIXELS
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
        tile: side in voxels of what the network sees at once, before the halo; memory grows with its square.
        max_body_bytes: largest request body in bytes, as sent and after decompression.
        queue_tiles: tiles that wait for the device at most; a request that does not fit is answered 429.
        queue_bytes: bodies, images and answers in memory at most, of all requests together, in bytes; likewise.
        batch_pixels: tiles of one shape share a run of the network up to so many pixels, their halos included.
        batch_wait_ms: how long a batch waits for requests that are on their way in, in milliseconds.
        bucket_sides: tiles are padded at the bottom and right to these sides in pixels, halo included, so that the
            network sees few shapes; empty: never; None: never on a CPU, a fixed ladder on a GPU.
        request_timeout_s: seconds from the whole body to the answer; a request past it is dropped.
        body_timeout_s: seconds within which a request body must have arrived.
        header_timeout_s: seconds within which the head of a request must have arrived.
        drain_s: seconds that requests in flight have to end after SIGTERM.
        max_connections: open at a time; further ones are closed at once.
        data_roots: folders whose volumes jobs may read, and where they may write.
        url_prefixes: URLs below which jobs may read volumes, e.g. ``s3://bucket/em/``.
        state_dir: where jobs are kept; None: the user's folder for such files.
        jobs_at_once: jobs that run at a time; the others wait.
        api_keys_file: one key per line as ``NAME:SCOPES:SHA256``, as `emboundary keys new` prints it.
        api_keys: such lines, separated by commas or line ends.
        no_auth: whether everybody may do everything, though the service can be reached from elsewhere.
        cors_origins: origins whose pages may read answers; none by default.
        allowed_hosts: values of ``Host`` that are answered; empty: all.
        log_format: ``json``, ``console``, or ``auto``: console on a terminal, else JSON.
        log_level: lines below it are not written.

    Raises:
        pydantic.ValidationError: a value out of range, or a data root that is no folder.
    """

    model_config = SettingsConfigDict(env_prefix="EMBOUNDARY_", extra="forbid", frozen=True)

    model: str = DEFAULT_MODEL
    repository: DirectoryPath = ZOO
    device: Device = "auto"
    tile: Annotated[int, Field(ge=1)] = DEFAULT_TILE
    max_body_bytes: Annotated[int, Field(ge=1)] = 64 * MEBIBYTE
    queue_tiles: Annotated[int, Field(ge=1)] = 1024
    queue_bytes: Annotated[int, Field(ge=1)] = 1024 * MEBIBYTE
    batch_pixels: Annotated[int, Field(ge=1)] = BATCH_PIXELS
    batch_wait_ms: Annotated[float, Field(ge=0, le=1000)] = 2.0
    bucket_sides: tuple[Annotated[int, Field(ge=1)], ...] | None = None
    request_timeout_s: Annotated[float, Field(gt=0)] = 30.0
    body_timeout_s: Annotated[float, Field(gt=0)] = 60.0
    header_timeout_s: Annotated[float, Field(gt=0)] = 10.0
    drain_s: Annotated[int, Field(ge=0)] = 25
    max_connections: Annotated[int, Field(ge=1)] = 1000
    data_roots: tuple[DirectoryPath, ...] = ()
    url_prefixes: tuple[str, ...] = ()
    state_dir: Path | None = None
    jobs_at_once: Annotated[int, Field(ge=1)] = 1
    api_keys_file: FilePath | None = None
    api_keys: SecretStr | None = None
    no_auth: bool = False
    cors_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    log_format: Literal["auto", "json", "console"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @property
    def limits(self) -> Limits:
        """What a request may hold and cost."""
        return Limits(
            max_body_bytes=self.max_body_bytes,
            max_computed_voxels=self.max_body_bytes * _VOXELS_PER_BODY_BYTE,
            queue_tiles=self.queue_tiles,
            request_timeout_s=self.request_timeout_s,
            tile=self.tile,
        )
