"""``GET /v1/models``: what is served, and the limits in force."""

from __future__ import annotations

from fastapi import APIRouter, Request

from emboundary.model.description import ModelDescription
from emboundary.service.problems import responses
from emboundary.service.routes.state import ServiceState, state_of
from emboundary.service.schemas import ModelList, ModelReply

router = APIRouter()


@router.get("/v1/models", summary="All served models")
async def models(request: Request) -> ModelList:
    """Descriptions of the served models, the default first, and the limits in force."""
    state = state_of(request)
    return ModelList(
        default=state.hosts.default.description.name,
        models=tuple(_reply(host.description, state) for host in state.hosts),
    )


@router.get("/v1/models/{name}", summary="One model", responses=responses(404))
async def model(request: Request, name: str) -> ModelReply:
    """The description of one model, and the limits in force."""
    state = state_of(request)
    return _reply(state.hosts.find(name).description, state)


def _reply(description: ModelDescription, state: ServiceState) -> ModelReply:
    return ModelReply(**dict(description), limits=state.settings.limits)
