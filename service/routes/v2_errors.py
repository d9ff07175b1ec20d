"""Errors of the Open Inference Protocol v2: ``{"error": "..."}`` on every path below ``/v2``."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict


class ErrorReply(BaseModel):
    """What was wrong, the value received, the rule and the remedy, in one line."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    error: str


def concerns(path: str) -> bool:
    """Whether errors below that path have the protocol's shape."""
    return path == "/v2" or path.startswith("/v2/")


def answer(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """An error as the protocol wants it.

    A request that was understood and cannot be served, elsewhere 422, is 400 here, which is the status that the
    protocol knows for it.
    """
    return Response(
        ErrorReply(error=detail).model_dump_json(),
        400 if status == 422 else status,
        headers,
        media_type="application/json",
    )


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The refusals of a route, for its OpenAPI description."""
    return {status: {"model": ErrorReply, "description": HTTPStatus(status).phrase} for status in statuses}
