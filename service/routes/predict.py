"""``POST /v1/predict``: one image or stack in, its boundary probabilities out."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from emboundary.service.codecs import MediaType, decode, encode, refuse_unstorable
from emboundary.service.preparing.intensity import Intensity
from emboundary.service.problems import responses
from emboundary.service.schemas import PredictQuery
from emboundary.service.state import state_of
from emboundary.service.visits.negotiation import answer_type, body_type
from emboundary.service.visits.question import Question, settle
from emboundary.service.visits.visit import Visit

router = APIRouter()

_IMAGES: dict[str, Any] = {media.value: {"schema": {"type": "string", "format": "binary"}} for media in MediaType}

_HEADERS: dict[str, Any] = {
    name: {"description": description, "schema": {"type": "string"}, "example": example}
    for name, description, example in (
        ("X-Emboundary-Intensity", "MEAN,STD that the voxel values were normalised by.", "128.5,41.2"),
        ("X-Emboundary-Model", "Name of the model.", "d4"),
        ("X-Emboundary-Model-Version", "Its version.", "1"),
        ("X-Emboundary-Model-Sha256", "Hash of its file.", "ab" * 32),
        ("X-Emboundary-Device", "Where it ran.", "cuda"),
        (
            "Server-Timing",
            "Milliseconds: in the queue, decoding, computing, encoding.",
            "queue;dur=1.2, decode;dur=0.8, compute;dur=21.5, encode;dur=0.4",
        ),
    )
}


@router.post(
    "/v1/predict",
    summary="Boundary probabilities of one image or stack",
    response_class=Response,
    responses={
        200: {
            "description": "Same height, width and number of sections as the body.",
            "content": _IMAGES,
            "headers": _HEADERS,
        },
        **responses(400, 401, 403, 404, 406, 408, 413, 415, 422, 429, 500, 503, 504),
    },
    openapi_extra={"requestBody": {"required": True, "content": _IMAGES}},
)
async def predict(request: Request, query: Annotated[PredictQuery, Query()]) -> Response:
    """Map the body with a model; the headers of the answer say which, and the intensity it was normalised by.

    A model with context (halo above 0 in z) sees each section of a stack amid its neighbours there, reflected at the
    stack's first and last section: send so many more on either side as its halo says, and leave their maps out.
    """
    state, headers = state_of(request), request.headers
    media = body_type(headers.get("content-type"), headers.get("content-encoding"))
    answered = answer_type(headers.get("accept"), media)
    served = state.models.find(query.model, query.version)
    given = None if query.intensity is None else Intensity.parse(query.intensity)
    limits = state.settings.limits

    async with Visit.of(request) as visit:
        body = await visit.receive()

        def read() -> Question:
            array = decode(body, media, limit=limits.max_body_bytes, axes=query.axes)
            refuse_unstorable(array.shape, np.dtype(query.dtype), answered)
            return settle(array, limits=limits, footprint=served.description.footprint, intensity=given)

        question = await visit.read(read)
        stored = await visit.compute(served, question, dtype=query.dtype, tta=query.tta, timeout_s=query.timeout_s)
        content = await visit.write(lambda: encode(stored, answered))
        described = {
            "X-Emboundary-Intensity": str(question.intensity),
            "X-Emboundary-Model": served.description.name,
            "X-Emboundary-Model-Version": served.description.version,
            "X-Emboundary-Model-Sha256": str(served.description.sha256),
            "X-Emboundary-Device": served.engine().device,
        }
        return visit.reply(content, answered.value, described)
