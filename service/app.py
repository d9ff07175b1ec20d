"""The HTTP application, from a factory: importing this module does nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI

from emboundary.service import problems
from emboundary.service.hosting import ModelHosts
from emboundary.service.routes import health, models, predict
from emboundary.service.routes.state import ServiceState
from emboundary.service.settings import Settings
from emboundary.service.trial import predict_tiny


def create_app(settings: Settings) -> FastAPI:
    """Make the service: its models are found and their hashes checked now, the default one runs when it starts.

    Raises:
        ModelUnavailableError: no such model, or a file that is not what its description says.
    """
    state = ServiceState(settings, ModelHosts.of(settings))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(warm_up, state)
        yield
        state.ready = False

    app = FastAPI(
        title="emboundary",
        summary="Neuron boundaries in electron microscopy images",
        version=version("emboundary"),
        lifespan=lifespan,
        redoc_url=None,
    )
    state.attach(app)
    problems.install(app)
    for router in (predict.router, models.router, health.router):
        app.include_router(router)
    return app


def warm_up(state: ServiceState) -> None:
    """Run a real, tiny inference with the default model; a second call does nothing.

    Raises:
        DeviceError: the device that was asked for does not work here.
        ModelUnavailableError: a file that is damaged or differs from its description.
    """
    if not state.ready:
        predict_tiny(state.hosts.default.open())
        state.ready = True
