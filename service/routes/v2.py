"""``/v2``: the Open Inference Protocol v2 (KServe) with Triton's binary tensors, configuration and model repository.

Standard clients work unchanged.  ``router`` brings its own scopes: health is open to everybody, the repository to
``admin``, the rest to ``predict``.
"""

from __future__ import annotations

import asyncio
from importlib.metadata import version as version_of
from typing import TypeVar

import msgspec
from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from emboundary.service.refusal import RequestError
from emboundary.service.routes import health
from emboundary.service.security.keys import require
from emboundary.service.state import state_of
from emboundary.service.v2 import document
from emboundary.service.v2.asking import LENGTH_HEADER, read_question, write_answer
from emboundary.service.v2.errors import responses
from emboundary.service.v2.messages import IndexRequest, LoadRequest, UnloadRequest, read_message
from emboundary.service.v2.replies import (
    IndexedModel,
    ModelConfig,
    ModelMetadata,
    ModelReady,
    ServerLive,
    ServerMetadata,
    ServerReady,
    TensorConfig,
    TensorMetadata,
)
from emboundary.service.visits.visit import Visit

_Message = TypeVar("_Message", bound=msgspec.Struct)


async def _refuse_query(request: Request) -> None:
    """What is asked stands in the JSON; a query would be passed over in silence."""
    if request.query_params:
        name = next(iter(request.query_params))
        raise RequestError(
            400, f"query parameter {name!r} is unknown; give parameters in the JSON (GET /docs lists them)"
        )


_open = APIRouter(tags=["Open Inference Protocol v2"])
_predict = APIRouter(tags=_open.tags, dependencies=[require("predict"), Depends(_refuse_query)])
_admin = APIRouter(tags=_open.tags, dependencies=[require("admin"), Depends(_refuse_query)])

_EXTENSIONS = (
    *("binary_tensor_data", "model_configuration", "model_repository", "model_repository(unload_dependents)"),
    "parameters",
)
_READ = responses(401, 403, 404)
_INFER = {200: document.INFERRED, **responses(400, 401, 403, 404, 408, 413, 415, 429, 500, 503, 504)}
_LIST = responses(400, 401, 403, 408, 413, 429, 503)
_CHANGE = _LIST | responses(404)


@_open.get("/v2/health/live", summary="The process answers")
async def live() -> ServerLive:
    """Say that the process answers."""
    return ServerLive()


@_open.get("/v2/health/ready", summary="The default model runs, and requests are taken", responses=responses(503))
async def ready(request: Request) -> ServerReady:
    """Say that the default model runs, as ``GET /health/ready`` does."""
    await health.ready(request)
    return ServerReady()


@_predict.get("/v2", summary="What serves here", responses=responses(401, 403))
async def server() -> ServerMetadata:
    """Name and version of the service, and the protocol's extensions that it speaks."""
    return ServerMetadata(name="emboundary", version=version_of("emboundary"), extensions=_EXTENSIONS)


@_predict.get("/v2/models/{name}", summary="A model's tensors", responses=_READ)
async def model(request: Request, name: str) -> ModelMetadata:
    """Versions and tensors of a model."""
    return _metadata(request, name, None)


@_predict.get("/v2/models/{name}/versions/{version}", summary="A model version's tensors", responses=_READ)
async def model_version(request: Request, name: str, version: str) -> ModelMetadata:
    """Versions and tensors of a model."""
    return _metadata(request, name, version)


@_predict.get("/v2/models/{name}/config", summary="A model as Triton's tools want it", responses=_READ)
async def config(request: Request, name: str) -> ModelConfig:
    """Configuration of a model."""
    return _config(request, name, None)


@_predict.get(
    "/v2/models/{name}/versions/{version}/config",
    summary="A model version as Triton's tools want it",
    responses=_READ,
)
async def version_config(request: Request, name: str, version: str) -> ModelConfig:
    """Configuration of a version of a model."""
    return _config(request, name, version)


@_predict.get("/v2/models/{name}/ready", summary="The model is served", responses=_READ | responses(503))
async def model_ready(request: Request, name: str) -> ModelReady:
    """Say that a model is served, and the service ready."""
    return await _ready(request, name, None)


@_predict.get(
    "/v2/models/{name}/versions/{version}/ready",
    summary="The model version is served",
    responses=_READ | responses(503),
)
async def model_version_ready(request: Request, name: str, version: str) -> ModelReady:
    """Say that a version of a model is served, and the service ready."""
    return await _ready(request, name, version)


@_predict.post(
    "/v2/models/{name}/infer",
    summary="Boundary probabilities of one image",
    response_class=Response,
    responses=_INFER,
    openapi_extra=document.INFER,
)
async def infer(request: Request, name: str) -> Response:
    """Map an image with the newest version of a model.

    The image's first axis, where it has three or four, is that of consecutive sections: a model with context sees each
    amid its neighbours there, reflected at the first and last.
    """
    return await _infer(request, name, None)


@_predict.post(
    "/v2/models/{name}/versions/{version}/infer",
    summary="Boundary probabilities of one image, by one version of a model",
    response_class=Response,
    responses=_INFER,
    openapi_extra=document.INFER,
)
async def infer_version(request: Request, name: str, version: str) -> Response:
    """Map an image with one version of a model."""
    return await _infer(request, name, version)


@_admin.post(
    "/v2/repository/index",
    summary="All models of the repository",
    responses={200: document.INDEXED, **_LIST},
    openapi_extra=document.INDEX,
)
async def index(request: Request) -> list[IndexedModel]:
    """Every version of every model: served, or why not."""
    asked = await _message(request, IndexRequest)
    entries = state_of(request).models.index()
    return [IndexedModel.of(entry) for entry in entries if entry.state == "READY" or not asked.ready]


@_admin.post(
    "/v2/repository/models/{name}/load",
    summary="Read a model's folder again",
    response_class=Response,
    responses=_CHANGE,
    openapi_extra=document.LOAD,
)
async def load(request: Request, name: str) -> Response:
    """Serve what the model's folder holds now; requests in progress end with what they began with."""
    await _message(request, LoadRequest)
    await asyncio.to_thread(state_of(request).models.load, name)
    return Response()


@_admin.post(
    "/v2/repository/models/{name}/unload",
    summary="Serve a model no more",
    response_class=Response,
    responses=_CHANGE | responses(409),
    openapi_extra=document.UNLOAD,
)
async def unload(request: Request, name: str) -> Response:
    """Serve a model no more; requests in progress end well, and the default model stays."""
    await _message(request, UnloadRequest)
    state_of(request).models.unload(name)
    return Response()


router = APIRouter()
for _part in (_open, _predict, _admin):
    router.include_router(_part)


def _metadata(request: Request, name: str, version: str | None) -> ModelMetadata:
    models = state_of(request).models
    description = models.find(name, version).description
    return ModelMetadata(
        name=description.name,
        versions=tuple(served.description.version for served in models.versions(name)),
        inputs=(TensorMetadata.of(description.input),),
        outputs=(TensorMetadata.of(description.output),),
    )


def _config(request: Request, name: str, version: str | None) -> ModelConfig:
    description = state_of(request).models.find(name, version).description
    return ModelConfig(
        name=description.name,
        input=(TensorConfig.of(description.input),),
        output=(TensorConfig.of(description.output),),
    )


async def _ready(request: Request, name: str, version: str | None) -> ModelReady:
    description = state_of(request).models.find(name, version).description
    await health.ready(request)
    return ModelReady(name=description.name)


async def _infer(request: Request, name: str, version: str | None) -> Response:
    state = state_of(request)
    served = state.models.find(name, version)
    description, limits = served.description, state.settings.limits
    async with Visit.of(request) as visit:
        body = await visit.receive()
        asked = await visit.read(lambda: read_question(body, request.headers, description, limits))
        how = asked.parameters
        stored = await visit.compute(served, asked, dtype=how.dtype, tta=how.tta, timeout_s=asked.timeout_s)
        device = served.engine().device
        content, length = await visit.write(lambda: write_answer(asked, stored, description, device))
        headers = {} if length is None else {LENGTH_HEADER: str(length)}
        media = "application/json" if length is None else "application/octet-stream"
        return visit.reply(content, media, headers)


async def _message(request: Request, kind: type[_Message]) -> _Message:
    """The JSON of a repository call; an empty body is an empty object."""
    async with Visit.of(request) as visit:
        body = await visit.receive()
    return read_message(body or b"{}", kind)
