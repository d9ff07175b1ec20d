"""The service's JSON and query strings.  Unknown fields and parameters are refused."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from emboundary.model.description import ModelDescription
from emboundary.service.probabilities import Dtype


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PredictQuery(_Strict):
    """Query parameters of ``POST /v1/predict``.

    Attributes:
        model: name of a served model; the default one where missing.
        version: of the model; its newest where missing.
        tta: whether to average the 8 rotations and flips.
        dtype: of the probabilities; uint8 stores round(255 p).
        intensity: ``MEAN,STD`` in voxel values; the body's own where missing.
        axes: what the body's dimensions are, where it does not say or says otherwise.
        timeout_s: seconds from the whole body within which an answer is of use; the service's limit where missing.
    """

    model: str | None = None
    version: str | None = None
    tta: bool = False
    dtype: Dtype = "uint8"
    intensity: str | None = None
    axes: Literal["yx", "zyx"] | None = None
    timeout_s: Annotated[float, Field(gt=0)] | None = None


class VersionQuery(_Strict):
    """Query parameters of ``GET /v1/models/{name}``: the newest version where none is named."""

    version: str | None = None


class Limits(_Strict):
    """What the service accepts.

    Attributes:
        max_body_bytes: largest body, as sent and decompressed.
        max_computed_voxels: most voxels that one request may cost: its sections, each with the halo around it.
        queue_tiles: tiles that wait for the device at most; a request that does not fit is answered 429.
        request_timeout_s: seconds from the whole body to the answer; what takes longer belongs into a job.
        tile: side in voxels of the tiles that a larger image is cut into.
    """

    max_body_bytes: Annotated[int, Field(ge=1)]
    max_computed_voxels: Annotated[int, Field(ge=1)]
    queue_tiles: Annotated[int, Field(ge=1)]
    request_timeout_s: Annotated[float, Field(gt=0)]
    tile: Annotated[int, Field(ge=1)]


class ModelReply(ModelDescription):
    """A model's description, the limits in force for it here, and all its versions that are served, newest first."""

    limits: Limits
    versions: tuple[str, ...] = ()


class ModelList(_Strict):
    """The served models; ``default`` answers where a request names none."""

    default: str
    models: tuple[ModelReply, ...]


class Health(_Strict):
    """Whether the service lives, or can answer: then with the default model and the device it runs on."""

    status: Literal["live", "ready"]
    model: str | None = None
    device: str | None = None


class ProblemDocument(BaseModel):
    """RFC 9457: ``about:blank`` says that the status tells the kind; ``detail`` tells the rest."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    type: str = "about:blank"
    title: str
    status: int
    detail: str
