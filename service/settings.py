"""What an operator may set for the HTTP service: by options, else by the environment, else by a file.

Names are the same everywhere: ``queue_tiles = 512`` in the file is ``EMBOUNDARY_QUEUE_TILES=512`` in the environment.
"""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, DirectoryPath, Field, FilePath, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from emboundary.model.description import Precision
from emboundary.model.repository import DEFAULT_MODEL, ZOO
from emboundary.service.engine import Device, GpuOptions
from emboundary.service.errors import UsageError, first_line
from emboundary.service.run.tiling import DEFAULT_TILE
from emboundary.service.schemas import Limits

MEBIBYTE = 2**20
CONFIG = "EMBOUNDARY_CONFIG"
_PREFIX = "EMBOUNDARY_"
_HIDDEN = "***"
# A thin image costs its halo, not its bytes: this many voxels per byte of the body limit are computed at most.
_VOXELS_PER_BODY_BYTE = 4


def _split(value: Any) -> Any:
    """Several values as one text of the environment: separated by commas."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


_Several = (NoDecode, BeforeValidator(_split))


class Settings(BaseSettings):
    """Settings of one service process.  Several values are lists in the file, and stand between commas elsewhere.

    Attributes:
        host: address to listen on; 0.0.0.0 for every network, which asks for API keys.
        port: to listen on; 0 picks a free one.
        model: name in the repository, or path, of the model that answers where a request names none.
        repository: folder of ``NAME/VERSION/model.onnx``; its other models are served too.
        device: where models run; ``cuda`` without a working GPU refuses to start.
        precision: arithmetic of all models; one that a model does not offer is refused.
        gpu_memory_mib: that a model may take on each GPU, in MiB; None: nine tenths of what is free.
        gpu_lanes: runs of a model side by side on each GPU.
        cuda_graphs: whether a GPU replays the kernels of a shape that it has seen.
        tensorrt: whether TensorRT runs models (precision float16 alone); building them takes minutes, once.
        tile: side in voxels of what the network sees at once, before the halo; memory grows with its square.
        max_body_bytes: largest request body in bytes, as sent and after decompression.
        queue_tiles: tiles that wait for the device at most; a request that does not fit is answered 429.
        queue_bytes: bodies, images and answers in memory at most, of all requests together, in bytes; likewise.
        batch_pixels: tiles of one shape share a run of the network up to so many pixels, their halos included; None:
            what suits the device.
        batch_wait_ms: how long a batch waits for requests that are on their way in, in milliseconds.
        bucket_sides: tiles are padded at the bottom and right to these sides in pixels, halo included, so that the
            network sees few shapes; empty: never; None: never on a CPU, a fixed ladder on a GPU.
        request_timeout_s: seconds from the whole body to the answer; a request past it is dropped.
        body_timeout_s: seconds within which a request body must have arrived; and longest pause of a client that takes
            an answer.
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

    model_config = SettingsConfigDict(env_prefix=_PREFIX, extra="forbid", frozen=True)

    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    model: str = DEFAULT_MODEL
    repository: DirectoryPath = ZOO
    device: Device = "auto"
    precision: Precision = "float32"
    gpu_memory_mib: Annotated[int, Field(ge=1)] | None = None
    gpu_lanes: Annotated[int, Field(ge=1, le=16)] = 2
    cuda_graphs: bool = True
    tensorrt: bool = False
    tile: Annotated[int, Field(ge=1)] = DEFAULT_TILE
    max_body_bytes: Annotated[int, Field(ge=1)] = 64 * MEBIBYTE
    queue_tiles: Annotated[int, Field(ge=1)] = 1024
    queue_bytes: Annotated[int, Field(ge=1)] = 1024 * MEBIBYTE
    batch_pixels: Annotated[int, Field(ge=1)] | None = None
    batch_wait_ms: Annotated[float, Field(ge=0, le=1000)] = 2.0
    bucket_sides: Annotated[tuple[Annotated[int, Field(ge=1)], ...] | None, *_Several] = None
    request_timeout_s: Annotated[float, Field(gt=0)] = 30.0
    body_timeout_s: Annotated[float, Field(gt=0)] = 60.0
    header_timeout_s: Annotated[float, Field(gt=0)] = 10.0
    drain_s: Annotated[int, Field(ge=0)] = 25
    max_connections: Annotated[int, Field(ge=1)] = 1000
    data_roots: Annotated[tuple[DirectoryPath, ...], *_Several] = ()
    url_prefixes: Annotated[tuple[str, ...], *_Several] = ()
    state_dir: Path | None = None
    jobs_at_once: Annotated[int, Field(ge=1)] = 1
    api_keys_file: FilePath | None = None
    api_keys: SecretStr | None = None
    no_auth: bool = False
    cors_origins: Annotated[tuple[str, ...], *_Several] = ()
    allowed_hosts: Annotated[tuple[str, ...], *_Several] = ()
    log_format: Literal["auto", "json", "console"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @property
    def gpu(self) -> GpuOptions:
        """How GPUs are used."""
        memory = None if self.gpu_memory_mib is None else self.gpu_memory_mib * MEBIBYTE
        return GpuOptions(memory, self.gpu_lanes, self.cuda_graphs, self.tensorrt)

    @property
    def limits(self) -> Limits:
        """What a request may hold and cost."""
        return Limits(
            max_body_bytes=self.max_body_bytes,
            max_computed_voxels=self.max_body_bytes * _VOXELS_PER_BODY_BYTE,
            queue_tiles=self.queue_tiles,
            request_timeout_s=self.request_timeout_s,
            tile=self.tile,
            precision=self.precision,
        )


def load_settings(config: Path | None = None, **options: Any) -> Settings:
    """Settings from a file, the environment and options together.

    Args:
        config: TOML file; None: the one that ``EMBOUNDARY_CONFIG`` names, if any.  Relative paths in it count from the
            folder that the service is started in.
        options: what was given on the command line, by the names of ``Settings``; None: not given.

    Raises:
        UsageError: a file that cannot be read, an unknown name, or a value out of range, and where it stands.
    """
    named = os.environ.get(CONFIG)
    path = config or (Path(named) if named else None)
    written = {} if path is None else _read(path)

    class _Merged(Settings):
        model_config = SettingsConfigDict(toml_file=path)

        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
            file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    given = {name: value for name, value in options.items() if value is not None}
    try:
        found = _Merged(**given)
    except ValidationError as error:
        raise _explained(error, given, path if written else None) from error
    return Settings.model_construct(found.model_fields_set, **dict(found))


def as_toml(settings: Settings) -> str:
    """The settings in force as a file that ``load_settings`` reads, without secrets; what is not set is a comment."""
    lines = []
    for name, value in settings.model_dump(mode="json").items():
        if isinstance(getattr(settings, name), SecretStr):
            lines.append(f"# {name} = {json.dumps(_HIDDEN)}")
        else:
            lines.append(f"# {name} =" if value is None else f"{name} = {json.dumps(value)}")
    return "\n".join(lines) + "\n"


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UsageError(
            f"config is {str(path)!r}, which cannot be read as TOML: {first_line(error)}; give a file of lines "
            "`name = value`"
        ) from error


def _explained(error: ValidationError, options: dict[str, Any], path: Path | None) -> UsageError:
    first = error.errors()[0]
    name = str(first["loc"][0])
    value = _HIDDEN if name == "api_keys" else first["input"]
    if first["type"] == "extra_forbidden":
        return UsageError(f"{path} has {name}, which is no setting; `emboundary serve --print-settings` lists them all")
    if name in options:
        where = f"the option --{name.replace('_', '-')}"
    elif f"{_PREFIX}{name}".lower() in map(str.lower, os.environ):
        where = f"the environment variable {_PREFIX}{name.upper()}"
    else:
        where = f"{name} in {path}"
    return UsageError(f"{name} is {str(value)!r}: {first['msg']}; change {where}")
