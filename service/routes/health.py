"""``GET /health/live`` and ``/health/ready``: whether the process answers, and whether it can predict."""

from __future__ import annotations

from fastapi import APIRouter, Request

from emboundary.service.problems import RequestError, responses
from emboundary.service.routes.state import state_of
from emboundary.service.schemas import Health

router = APIRouter()


@router.get("/health/live", response_model_exclude_none=True, summary="The process answers")
async def live() -> Health:
    """Say that the process answers."""
    return Health(status="live")


@router.get("/health/ready", summary="A real inference has run", responses=responses(503))
async def ready(request: Request) -> Health:
    """Say that the default model has run a real inference here, and where."""
    state = state_of(request)
    host = state.hosts.default
    if not state.ready:
        raise RequestError(
            503,
            f"model {host.description.name} has not run its first inference yet, or the service is shutting down; ask "
            "again after the seconds that Retry-After names",
            headers={"Retry-After": "1"},
        )
    return Health(status="ready", model=host.description.name, device=host.open().device)
