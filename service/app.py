"""The HTTP application, from a factory: importing this module does nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI

from emboundary.service import problems
from emboundary.service.batching.scheduler import Policy, Scheduler
from emboundary.service.batching.warming import warm_up as warm_up_engine
from emboundary.service.cores import usable_cores
from emboundary.service.hosting import Models
from emboundary.service.jobs.manager import JobManager
from emboundary.service.memory import Memory
from emboundary.service.metrics import Metrics
from emboundary.service.operations import edge
from emboundary.service.routes import docs, health, predict, v2
from emboundary.service.routes import jobs as job_routes
from emboundary.service.routes import metrics as metric_routes
from emboundary.service.routes import models as model_routes
from emboundary.service.security.keys import Keys, require
from emboundary.service.settings import Settings
from emboundary.service.state import ServiceState


def create_app(settings: Settings) -> FastAPI:
    """Make the service: its models are found and their hashes checked now, the default one runs when it starts.

    Raises:
        ModelUnavailableError: no such default model, or a file that is not what its description says.
    """
    state = create_state(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(warm_up, state)
        yield
        state.drain()
        await asyncio.to_thread(close, state)

    app = FastAPI(
        title="emboundary",
        summary="Neuron boundaries in electron microscopy images",
        version=version("emboundary"),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a path that is not served is 404, not a redirection to what Host says
    )
    state.attach(app)
    problems.install(app)
    app.include_router(predict.router, tags=["Images"], dependencies=[require("predict")])
    app.include_router(model_routes.router, tags=["Models"], dependencies=[require("predict")])
    app.include_router(job_routes.router, tags=["Jobs"], dependencies=[require("jobs")])
    app.include_router(health.router, tags=["Health"])
    app.include_router(v2.router)
    app.include_router(metric_routes.router)
    app.include_router(docs.router)
    edge.install(app, settings, state.metrics, guarded=bool(state.keys))
    return app


def create_state(settings: Settings) -> ServiceState:
    """Everything that an application holds; no engine is opened and no thread started yet.

    Raises:
        ModelUnavailableError: as above.
    """
    metrics = Metrics()
    policy = Policy(
        queue_tiles=settings.queue_tiles,
        batch_pixels=settings.batch_pixels,
        batch_wait_s=settings.batch_wait_ms / 1000,
        bucket_sides=settings.bucket_sides,
    )
    scheduler = Scheduler(policy, metrics)
    memory = Memory(settings.queue_bytes)
    models = Models(settings, prepare=lambda engine: warm_up_engine(engine, policy, settings.tile, scheduler))
    jobs_are_possible = settings.data_roots or settings.url_prefixes
    state = ServiceState(
        settings,
        models,
        scheduler,
        memory,
        ThreadPoolExecutor(usable_cores() + 2, "emboundary-codec"),
        metrics,
        Keys.of(settings),
        JobManager(settings, models, scheduler, metrics) if jobs_are_possible else None,
    )
    metrics.watch_queue(lambda: scheduler.waiting_tiles, lambda: memory.used)
    metrics.watch_ready(lambda: state.ready)
    return state


def warm_up(state: ServiceState) -> None:
    """Open the default model, run the shapes it will mostly see, go on with jobs, and let requests in.

    A second call does nothing.

    Raises:
        DeviceError: the device that was asked for does not work here.
        ModelUnavailableError: a file that is damaged or differs from its description.
        StoreError: another server keeps its jobs in the same folder, or nothing can be kept there.
    """
    if not state.ready and not state.draining:
        engine = state.models.default.engine()
        state.scheduler.start(threads=engine.lanes)
        if state.jobs is not None:
            engine.largest_tile()  # on a GPU it is tried out: now, and not while requests wait
            state.jobs.start()
        state.ready = True


def close(state: ServiceState) -> None:
    """Let go of everything; what still waits is refused."""
    if state.jobs is not None:
        state.jobs.stop()
    state.scheduler.close()
    state.pool.shutdown()
