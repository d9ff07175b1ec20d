"""What stands around the application, from outside: headers, id and count and log, other origins, unwelcome callers."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from emboundary.service.metrics import Metrics
from emboundary.service.operations.access import Access
from emboundary.service.operations.headers import LOOPBACK, Callers, SecurityHeaders
from emboundary.service.settings import Settings

_EXPOSED = (
    *("X-Request-Id", "Retry-After", "Location", "Server-Timing", "X-Emboundary-Intensity", "X-Emboundary-Model"),
    *("X-Emboundary-Model-Version", "X-Emboundary-Model-Sha256", "X-Emboundary-Device"),
)


def install(app: FastAPI, settings: Settings, metrics: Metrics, *, guarded: bool) -> None:
    """Put the middlewares around an application that has not started yet.

    Args:
        app: with its routes and error handlers.
        settings: its origins and hosts.
        metrics: where requests are counted.
        guarded: whether keys are needed.
    """
    hosts = settings.allowed_hosts
    if not hosts and not guarded and not settings.no_auth:
        hosts = (*LOOPBACK, settings.host)
    # The last one added is the outermost.
    app.add_middleware(Callers, hosts=hosts, origins=settings.cors_origins, guarded=guarded)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=("GET", "POST", "DELETE"),
            allow_headers=("*",),
            expose_headers=_EXPOSED,
        )
    app.add_middleware(Access, metrics=metrics)
    app.add_middleware(SecurityHeaders, shared=bool(settings.cors_origins))
