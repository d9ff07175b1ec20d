"""``GET /metrics``: what the service counts, for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from emboundary.service.problems import responses
from emboundary.service.security.keys import require
from emboundary.service.state import state_of

router = APIRouter()

_EXAMPLE = 'emboundary_requests_total{method="POST",route="/v1/predict",status="200"} 1027.0\n'


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={
        200: {"description": "In the text format of Prometheus, or OpenMetrics where `Accept` asks for it."}
        | {"content": {"text/plain": {"schema": {"type": "string"}, "example": _EXAMPLE}}},
        **responses(401, 403),
    },
    dependencies=[require("admin")],
)
def metrics(request: Request) -> Response:
    """Count requests, refusals, tiles, voxels and jobs, and measure queue, device and process; needs ``admin``."""
    content, content_type = state_of(request).metrics.exposition(request.headers.get("accept", ""))
    return Response(content, headers={"Content-Type": content_type})
