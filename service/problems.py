"""Errors as RFC 9457 problem documents: what was wrong, the value received, the rule and the remedy.

Routes raise; the handlers installed here are the only place where an error becomes a response.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.routing import Match

from emboundary.service.codecs.errors import MalformedBodyError, TooLargeError
from emboundary.service.errors import (
    DeviceError,
    EmboundaryError,
    InputError,
    ModelUnavailableError,
    OutputError,
    UsageError,
)
from emboundary.service.problem_examples import DETAILS, HEADERS
from emboundary.service.refusal import RequestError
from emboundary.service.schemas import ProblemDocument
from emboundary.service.security.redaction import redact
from emboundary.service.v2 import errors as v2_errors

MEDIA_TYPE = "application/problem+json"
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_log = logging.getLogger(__name__)

_STATUS_OF: tuple[tuple[type[EmboundaryError], int, str], ...] = (  # the first that fits, and what it is counted as
    (TooLargeError, 413, "image_too_large"),
    (MalformedBodyError, 400, "body"),
    (InputError, 422, "image"),
    (UsageError, 422, "parameters"),
    (OutputError, 422, "output"),
    (DeviceError, 503, "device"),
    (ModelUnavailableError, 503, "model"),
)


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The refusals of a route, for its OpenAPI description."""
    return {status: _response(status) for status in statuses}


def _response(status: int) -> dict[str, Any]:
    phrase = HTTPStatus(status).phrase
    example = ProblemDocument(title=phrase, status=status, detail=DETAILS[status]).model_dump()
    content = {MEDIA_TYPE: {"schema": ProblemDocument.model_json_schema(), "example": example}}
    return {"description": phrase, "content": content, "headers": HEADERS.get(status, {})}


def install(app: FastAPI) -> None:
    """Make every error of ``app``, its framework's own included, a problem document."""
    app.add_exception_handler(EmboundaryError, answer)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _framework)
    app.add_exception_handler(Exception, _unexpected)


def _answer(
    request: Request, status: int, detail: str, reason: str, headers: Mapping[str, str] | None = None
) -> Response:
    """The one place where a refusal becomes bytes: counted, and without what it must not tell."""
    state = getattr(request.app.state, "service", None)
    if state is not None:
        state.metrics.refused(reason)
        detail = redact(detail, state.settings)
    if v2_errors.concerns(request.url.path):
        return v2_errors.answer(status, detail, headers)
    document = ProblemDocument(title=HTTPStatus(status).phrase, status=status, detail=detail)
    return Response(document.model_dump_json(), status, headers, media_type=MEDIA_TYPE)


async def answer(request: Request, error: Exception) -> Response:
    """The answer to a request that failed; for middlewares too, which the handlers do not reach."""
    if isinstance(error, RequestError):
        return _answer(request, error.status, str(error), error.reason, error.headers)
    for kind, status, reason in _STATUS_OF:
        if isinstance(error, kind):
            if status >= 500:
                _log.error("%s", error)
            return _answer(request, status, str(error), reason)
    return await _unexpected(request, error)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return _answer(request, 422, "; ".join(_sentence(e) for e in error.errors()), "parameters")


async def _framework(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path
    detail = {
        404: f"{path} is not served here; GET /docs lists what is",
        405: f"{path} does not take {request.method}; GET /docs lists what it takes",
    }.get(error.status_code, str(error.detail))
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = ", ".join(_allowed(request))
    return _answer(request, error.status_code, detail, "route", headers)


def _allowed(request: Request) -> list[str]:
    """Methods that a path takes; the framework names those of its first route alone."""
    routes = request.app.routes
    return [m for m in _METHODS if any(r.matches({**request.scope, "method": m})[0] is Match.FULL for r in routes)]


async def _unexpected(request: Request, error: Exception) -> Response:
    _log.error("a request failed unexpectedly", exc_info=error)
    return _answer(request, 500, "the request failed through a defect of the service; its log says more", "defect")


def _sentence(error: Mapping[str, object]) -> str:
    """One validation error as argument, rule and the value received."""
    location = error["loc"]
    assert isinstance(location, tuple)
    where, *names = location
    name = ".".join(str(part) for part in names) or str(where)
    if error["type"] == "extra_forbidden":
        return f"{where} parameter {name!r} is unknown; leave it out (GET /docs lists the known ones)"
    return f"{where} parameter {name} is {error['input']!r}: {error['msg']}"
