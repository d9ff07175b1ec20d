"""What the routes share, carried by the application."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from fastapi import FastAPI, Request

from emboundary.service.batching.scheduler import Scheduler
from emboundary.service.hosting import Models
from emboundary.service.jobs.manager import JobManager
from emboundary.service.memory import Memory
from emboundary.service.metrics import Metrics
from emboundary.service.security.keys import Keys
from emboundary.service.settings import Settings


@dataclass
class ServiceState:
    """One application's settings, and everything that lives as long as it does.

    Attributes:
        models: what is served.
        scheduler: in front of the device.
        memory: what requests may hold together.
        pool: threads that decode and encode.
        metrics: what is counted.
        keys: who may do what.
        jobs: volume jobs; None where no folder or URL is open to them.
        ready: whether a real inference has run, and the service is not shutting down.
        draining: whether it takes nothing new.
    """

    settings: Settings
    models: Models
    scheduler: Scheduler
    memory: Memory
    pool: ThreadPoolExecutor
    metrics: Metrics
    keys: Keys
    jobs: JobManager | None = None
    ready: bool = False
    draining: bool = False

    def drain(self) -> None:
        """Take nothing new, and let jobs stop at their next block; what is in progress has ``drain_s`` to end.

        What still waits for the device a second before is refused, so that it is told so and not cut off.
        """
        if self.draining:
            return
        self.ready = False
        self.draining = True
        if self.jobs is not None:
            self.jobs.request_stop()
        last_call = threading.Timer(max(0, self.settings.drain_s - 1), self.scheduler.close)
        last_call.daemon = True
        last_call.start()

    def attach(self, app: FastAPI) -> None:
        """Make this the state that the routes of ``app`` see."""
        app.state.service = self


def state_of(request: Request) -> ServiceState:
    """The state of the application that serves a request."""
    state = request.app.state.service
    assert isinstance(state, ServiceState)
    return state
