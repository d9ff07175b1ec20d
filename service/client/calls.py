"""Every call of the service: how its request is built and how its answer is read, without sending anything."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import httpx
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from emboundary.model.repository import canonical_name
from emboundary.service.client.retrying import Persistence
from emboundary.service.codecs import MediaType, encode, npy
from emboundary.service.errors import InputError, OutputError, RemoteError, UsageError
from emboundary.service.jobs.schemas import Job, JobList, JobState, JobSubmission
from emboundary.service.preparing.intensity import Intensity
from emboundary.service.probabilities import Dtype
from emboundary.service.schemas import Health, ModelList, ModelReply

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)
Image = NDArray[Any] | str | PathLike[str]

_SUFFIXES = {".npy": MediaType.NPY, ".tif": MediaType.TIFF, ".tiff": MediaType.TIFF, ".png": MediaType.PNG}


@dataclass(frozen=True)
class Answer:
    """What ``/v1/predict`` said.

    Attributes:
        array: probabilities in the shape of the question; uint8 holds round(255 p).
        intensity: what the voxel values were normalised by.
        device: where the model ran, ``cpu`` or ``cuda``.
        model: its name.
        version: of the model.
        sha256: of the model's file.
    """

    array: NDArray[Any]
    intensity: Intensity
    device: str
    model: str
    version: str
    sha256: str

    def save(self, path: str | PathLike[str]) -> None:
        """Write the probabilities as .npy, .tif or .png, by suffix.

        Raises:
            UsageError: another suffix.
            InputError: a PNG of several sections, or of other values than uint8.
            OutputError: a place that cannot be written to.
        """
        content = encode(self.array, _media_type(Path(path)))
        try:
            Path(path).write_bytes(content)
        except OSError as error:
            raise OutputError(f"{path} cannot be written ({error.strerror}); give another path") from error


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request, and how its answer is read.

    Attributes:
        read: reads a successful answer; see ``understand``.
        persistence: after what it is sent again.
    """

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    persistence: Persistence
    params: Sequence[tuple[str, str]] = ()
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def build(self, http: httpx.Client | httpx.AsyncClient) -> httpx.Request:
        """The request, below the base URL of a client and with its headers."""
        return http.build_request(
            self.method,
            self.path,
            params=httpx.QueryParams([*self.params]),
            content=self.content,
            headers=dict(self.headers),
        )

    def understand(self, response: httpx.Response) -> T:
        """Read a successful answer.

        Raises:
            RemoteError: it is not what this service's version would say.
        """
        try:
            return self.read(response)
        except (InputError, UsageError, ValidationError, KeyError) as error:
            raise RemoteError(
                f"{response.url.copy_with(path='/', query=None)} gave an answer that is not an emboundary service's; "
                "check --url, and that both run the same version"
            ) from error


def health() -> Call[Health]:
    """Whether the service can predict."""
    return Call("GET", "/health/ready", _json(Health), Persistence.ONCE)


def models() -> Call[ModelList]:
    """What is served."""
    return Call("GET", "/v1/models", _json(ModelList), Persistence.BUSY)


def model(name: str, version: str) -> Call[ModelReply]:
    """One version of a model."""
    return Call(
        "GET", f"/v1/models/{quote(name, safe='')}", _json(ModelReply), Persistence.BUSY, [("version", version)]
    )


def predict(
    image: Image,
    *,
    model: str | None,
    version: str | None,
    tta: bool,
    dtype: Dtype,
    intensity: Intensity | None,
    deadline_s: float | None,
) -> Call[Answer]:
    """The probabilities of one image, which is a pure function of it: asking twice does no harm.

    Raises:
        UsageError: an array of other than 2 or 3 dimensions, or a file of another type.
        InputError: a file that cannot be read.
    """
    params = [("dtype", dtype), ("tta", str(tta).lower())]
    shape: tuple[int, ...] | None = None
    if isinstance(image, np.ndarray):
        if image.ndim not in (2, 3):
            raise UsageError(f"the image has shape {image.shape}; it must be a section (y, x) or a stack (z, y, x)")
        shape, media, content = image.shape, MediaType.NPY, encode(image, MediaType.NPY)
        params.append(("axes", "zyx"[-image.ndim :]))
    else:
        path = Path(image)
        media = _media_type(path)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error.strerror}); give an image that exists") from error
    settled = {"model": model, "version": version, "intensity": intensity, "timeout_s": deadline_s}
    for name, value in settled.items():
        if value is not None:
            params.append((name, str(value)))
    return Call(
        "POST",
        "/v1/predict",
        lambda response: _answer(response, shape),
        Persistence.ALWAYS,
        params,
        content,
        {"Content-Type": media, "Accept": MediaType.NPY},
    )


def submit(submission: JobSubmission) -> Call[Job]:
    """A new job; its key makes the service take what arrives twice for one."""
    return Call(
        "POST",
        "/v1/jobs",
        _json(Job),
        Persistence.LOST,
        content=submission.model_dump_json(exclude_none=True).encode(),
        headers={"Content-Type": "application/json", "Idempotency-Key": str(uuid.uuid4())},
    )


def jobs(states: Sequence[JobState], limit: int, before: str | None) -> Call[JobList]:
    """A page of the service's jobs, the newest first."""
    params = [("limit", str(limit)), *(("state", state) for state in states)]
    if before is not None:
        params.append(("before", before))
    return Call("GET", "/v1/jobs", _json(JobList), Persistence.LOST, params)


def job(identity: str, persistence: Persistence = Persistence.LOST) -> Call[Job]:
    """One job as it is now."""
    return Call("GET", _job_path(identity), _json(Job), persistence)


def cancel(identity: str) -> Call[Job]:
    """End a job; a second request would be told that it is over, so that none is sent once it may have arrived."""
    return Call("DELETE", _job_path(identity), _json(Job), Persistence.BUSY)


def events_path(identity: str) -> str:
    """Where a job's events are."""
    return f"{_job_path(identity)}/events"


def choose(known: ModelList, name: str | None, url: str) -> ModelReply:
    """The model of a name, or the default one.

    Raises:
        RemoteError: a name that is not served.
    """
    models = {reply.name: reply for reply in known.models}
    wanted = known.default if name is None else name
    try:
        return models[canonical_name(wanted, models)]
    except KeyError:
        raise RemoteError(f"model is {wanted!r}; {url} serves {', '.join(models)}") from None


def _job_path(identity: str) -> str:
    if not identity.isascii() or not identity.replace("-", "").replace("_", "").isalnum():
        raise UsageError(f"job is {identity!r}; give the id that `emboundary client submit` or `client jobs` shows")
    return f"/v1/jobs/{identity}"


def _json(model: type[M]) -> Callable[[httpx.Response], M]:
    return lambda response: model.model_validate_json(response.content)


def _media_type(path: Path) -> MediaType:
    try:
        return _SUFFIXES[path.suffix.lower()]
    except KeyError:
        raise UsageError(
            f"the image is {path}; its name must end in {', '.join(_SUFFIXES)} (`emboundary client predict` takes "
            "every kind of volume)"
        ) from None


def _answer(response: httpx.Response, shape: tuple[int, ...] | None) -> Answer:
    array, _ = npy.decode(response.content, limit=len(response.content))  # it is in memory already
    if shape not in (None, array.shape):
        raise InputError(f"the answer has shape {array.shape}, the question {shape}")
    said = response.headers
    return Answer(
        array,
        Intensity.parse(said["X-Emboundary-Intensity"]),
        said["X-Emboundary-Device"],
        said["X-Emboundary-Model"],
        said["X-Emboundary-Model-Version"],
        said["X-Emboundary-Model-Sha256"],
    )
