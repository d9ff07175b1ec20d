"""The service's JSON and query strings.  Unknown fields and parameters are refused."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from emboundary.model.description import ModelDescription, Precision
from emboundary.model.repository import DEFAULT_MODEL, load_model
from emboundary.service.probabilities import Dtype


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PredictQuery(_Strict):
    """Query parameters of ``POST /v1/predict``."""

    model: Annotated[
        str | None, Field(description="Name of a served model; the default one where missing.", examples=["d4"])
    ] = None
    version: Annotated[
        str | None, Field(description="Of the model; its newest served one where missing.", examples=["1"])
    ] = None
    tta: Annotated[
        bool,
        Field(
            description="Average the 8 rotations and flips: eight times the cost, for models that are not symmetric."
        ),
    ] = False
    dtype: Annotated[Dtype, Field(description="Of the probabilities; uint8 stores round(255 p).")] = "uint8"
    intensity: Annotated[
        str | None,
        Field(
            description="MEAN,STD in voxel values, of the whole volume that the image comes from; the image's own "
            "where missing.",
            examples=["128.5,41.2"],
        ),
    ] = None
    axes: Annotated[
        Literal["yx", "zyx"] | None,
        Field(description="What the body's dimensions are, where it does not say or says otherwise."),
    ] = None
    timeout_s: Annotated[
        float | None,
        Field(
            gt=0,
            description="Seconds from the whole body within which an answer is of use; the service's own limit where "
            "missing or longer.",
            examples=[10.0],
        ),
    ] = None


class VersionQuery(_Strict):
    """Query parameters of ``GET /v1/models/{name}``."""

    version: Annotated[
        str | None, Field(description="Of the model; its newest served one where missing.", examples=["1"])
    ] = None


class Limits(_Strict):
    """What the service accepts.

    Attributes:
        max_body_bytes: largest body, as sent and decompressed.
        max_computed_voxels: most voxels that one request may cost: its sections, each with the halo around it.
        queue_tiles: tiles that wait for the device at most; a request that does not fit is answered 429.
        request_timeout_s: seconds from the whole body to the answer; what takes longer belongs into a job.
        tile: side in voxels of the tiles that a larger image is cut into.
        precision: arithmetic of the networks.
    """

    max_body_bytes: Annotated[int, Field(ge=1)]
    max_computed_voxels: Annotated[int, Field(ge=1)]
    queue_tiles: Annotated[int, Field(ge=1)]
    request_timeout_s: Annotated[float, Field(gt=0)]
    tile: Annotated[int, Field(ge=1)]
    precision: Precision = "float32"


class ModelReply(ModelDescription):
    """A model's description, the limits in force for it here, and all its versions that are served, newest first."""

    model_config = ConfigDict(json_schema_extra=lambda schema: schema.update(examples=[_model_example()]))

    limits: Limits
    versions: tuple[str, ...] = ()


class ModelList(_Strict):
    """The served models; ``default`` answers where a request names none."""

    model_config = ConfigDict(
        json_schema_extra=lambda schema: schema.update(
            examples=[{"default": DEFAULT_MODEL, "models": [_model_example()]}]
        )
    )

    default: str
    models: tuple[ModelReply, ...]


class Health(_Strict):
    """Whether the service lives, or can answer: then with the default model and the device it runs on."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "ready", "model": "d4", "device": "cuda"}]})

    status: Literal["live", "ready"]
    model: str | None = None
    device: str | None = None


def _model_example() -> dict[str, Any]:
    """The bundled default model under example limits; read when the API is described, not before."""
    limits = Limits(
        max_body_bytes=1 << 26, max_computed_voxels=1 << 28, queue_tiles=1024, request_timeout_s=30, tile=896
    )
    description = load_model(DEFAULT_MODEL).description
    return {
        **description.model_dump(mode="json"),
        "limits": limits.model_dump(mode="json"),
        "versions": [description.version],
    }


class ProblemDocument(BaseModel):
    """RFC 9457: ``about:blank`` says that the status tells the kind; ``detail`` tells the rest."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    type: str = "about:blank"
    title: str
    status: int
    detail: str
