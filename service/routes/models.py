"""``GET /v1/models``: what is served, and the limits in force."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request

from emboundary.service.hosting import Served
from emboundary.service.problems import responses
from emboundary.service.schemas import ModelList, ModelReply, VersionQuery
from emboundary.service.state import ServiceState, state_of

router = APIRouter()


@router.get("/v1/models", summary="All served models", responses=responses(401, 403, 503))
async def models(request: Request) -> ModelList:
    """Descriptions of the served models, the default first, and the limits in force."""
    state = state_of(request)
    return ModelList(
        default=state.models.default.description.name,
        models=tuple(_reply(served, state) for served in state.models),
    )


@router.get("/v1/models/{name}", summary="One model", responses=responses(401, 403, 404, 422, 503))
async def model(request: Request, name: str, query: Annotated[VersionQuery, Query()]) -> ModelReply:
    """The description of one model, and the limits in force."""
    state = state_of(request)
    return _reply(state.models.find(name, query.version), state)


def _reply(served: Served, state: ServiceState) -> ModelReply:
    description = served.description
    versions = tuple(other.description.version for other in state.models.versions(description.name))
    return ModelReply(**dict(description), limits=state.settings.limits, versions=versions)
