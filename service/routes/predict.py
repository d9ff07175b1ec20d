"""``POST /v1/predict``: one image or stack in, its boundary probabilities out."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from starlette.requests import ClientDisconnect

from emboundary.service.answering import answer, read_question
from emboundary.service.codecs import MediaType, encode, refuse_unstorable
from emboundary.service.negotiation import answer_type, body_type
from emboundary.service.preparing.intensity import Intensity
from emboundary.service.probabilities import to_stored
from emboundary.service.problems import RequestError, responses
from emboundary.service.routes.state import state_of
from emboundary.service.schemas import PredictQuery

router = APIRouter()

_IMAGES: dict[str, Any] = {media.value: {"schema": {"type": "string", "format": "binary"}} for media in MediaType}


@dataclass
class _Timing:
    """Durations of the parts of one request, for the ``Server-Timing`` header."""

    started: float = field(default_factory=time.perf_counter)
    parts: dict[str, float] = field(default_factory=dict)

    def mark(self, part: str) -> None:
        now = time.perf_counter()
        self.parts[part] = now - self.started
        self.started = now

    def __str__(self) -> str:
        return ", ".join(f"{part};dur={1000 * seconds:.1f}" for part, seconds in self.parts.items())


@router.post(
    "/v1/predict",
    summary="Boundary probabilities of one image or stack",
    response_class=Response,
    responses={
        200: {"description": "Same height, width and number of sections as the body.", "content": _IMAGES},
        **responses(400, 404, 406, 408, 413, 415, 422, 429, 503),
    },
    openapi_extra={"requestBody": {"required": True, "content": _IMAGES}},
)
async def predict(request: Request, query: Annotated[PredictQuery, Query()]) -> Response:
    """Map the body with a model; the headers of the answer say which, and the intensity it was normalised by."""
    state, headers = state_of(request), request.headers
    media = body_type(headers.get("content-type"), headers.get("content-encoding"))
    answered = answer_type(headers.get("accept"), media)
    host = state.hosts.find(query.model)
    intensity = None if query.intensity is None else Intensity.parse(query.intensity)
    settings = state.settings

    with host.place():
        timing = _Timing()
        body = await _read_body(request, settings.max_body_bytes, settings.body_timeout_s)
        timing.mark("receive")
        question = await asyncio.to_thread(
            read_question,
            body,
            media,
            limits=settings.limits,
            footprint=host.description.footprint,
            axes=query.axes,
            intensity=intensity,
        )
        refuse_unstorable(question.shape, np.dtype(query.dtype), answered)
        timing.mark("decode")
        async with host.turn() as engine:
            if await request.is_disconnected():
                raise RequestError(400, "the connection closed before the answer; nothing was computed")
            timing.mark("wait")
            probability = await asyncio.to_thread(answer, engine, question, tile=settings.tile, tta=query.tta)
        timing.mark("predict")
        content = await asyncio.to_thread(lambda: encode(to_stored(probability, query.dtype), answered))
        timing.mark("encode")

    return Response(
        content,
        media_type=answered.value,
        headers={
            "X-Emboundary-Intensity": str(question.intensity),
            "X-Emboundary-Model": host.description.name,
            "X-Emboundary-Model-Version": host.description.version,
            "X-Emboundary-Model-Sha256": str(host.description.sha256),
            "X-Emboundary-Device": engine.device,
            "Server-Timing": str(timing),
        },
    )


async def _read_body(request: Request, limit: int, timeout_s: float) -> bytes:
    """Receive a body, and stop as soon as it is too large or too slow.

    Raises:
        RequestError: 413 or 408.
    """
    promised = request.headers.get("content-length", "")
    if promised.isdecimal() and int(promised) > limit:
        raise _too_large(f"{promised} bytes", limit)
    body = bytearray()
    try:
        async with asyncio.timeout(timeout_s):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    raise _too_large(f"more than {limit} bytes", limit)
    except TimeoutError:
        raise RequestError(
            408,
            f"{len(body)} bytes of the body arrived within {timeout_s:g} s, and it was not complete; send less at a "
            "time, or over a faster connection",
        ) from None
    except ClientDisconnect:
        raise RequestError(400, f"the connection closed after {len(body)} bytes of the body; send it whole") from None
    return bytes(body)


def _too_large(received: str, limit: int) -> RequestError:
    return RequestError(
        413,
        f"the body has {received}; at most {limit} are accepted (GET /v1/models): send it in smaller pieces, as "
        "`emboundary client predict` does",
    )
