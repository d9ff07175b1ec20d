"""``GET /health/live`` and ``/health/ready``: whether the process answers, and whether it can predict."""

from __future__ import annotations

from fastapi import APIRouter, Request

from emboundary.service.problems import responses
from emboundary.service.refusal import RequestError
from emboundary.service.schemas import Health
from emboundary.service.state import state_of
from emboundary.service.visits.proof import prove

router = APIRouter()

# A batch that was computed, or went into the network, so few seconds ago proves as much as one of the probe's own.
_PROOF_LASTS_S = 5.0


@router.get("/health/live", response_model_exclude_none=True, summary="The process answers")
async def live() -> Health:
    """Say that the process answers."""
    return Health(status="live")


@router.get("/health/ready", summary="The default model runs, and requests are taken", responses=responses(503))
async def ready(request: Request) -> Health:
    """Say that the default model runs here, and where: it has within the last seconds, or does so now."""
    state = state_of(request)
    served = state.models.default
    if not state.ready:
        raise RequestError(
            503,
            f"model {served.description.name} has not run its first inference yet, or the service is shutting down; "
            "ask again after the seconds that Retry-After names",
            headers={"Retry-After": "1"},
            reason="not_ready",
        )
    if state.scheduler.silent_s() > _PROOF_LASTS_S:
        await prove(state)
    return Health(status="ready", model=served.description.name, device=served.engine().device)
