"""Errors of the Open Inference Protocol v2: ``{"error": "..."}`` on every path below ``/v2``."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict

_EXAMPLE = "model is 'd5'; served here are d4, plain (GET /v1/models)"


class ErrorReply(BaseModel):
    """What was wrong, the value received, the rule and the remedy, in one line."""

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra={"example": {"error": _EXAMPLE}})

    error: str


def concerns(path: str) -> bool:
    """Whether errors of that path have the protocol's shape."""
    return path == "/v2" or path.startswith("/v2/")


def answer(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """An error as the protocol wants it.

    What is 422 elsewhere, a request that was understood and cannot be served, is 400 here: the protocol knows no other
    status for it.
    """
    return Response(
        ErrorReply(error=detail).model_dump_json(),
        400 if status == 422 else status,
        headers,
        media_type="application/json",
    )


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The refusals of a route, for its OpenAPI description."""
    named = {str(status): HTTPStatus(status).phrase for status in statuses}
    return {status: {"model": ErrorReply, "description": said} for status, said in (named | _OTHERS).items()}


_OTHERS = {"4XX": "Any other refusal"}
