"""What the routes share, carried by the application."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import FastAPI, Request

from emboundary.service.hosting import ModelHosts
from emboundary.service.settings import Settings


@dataclass
class ServiceState:
    """One application's settings and models.

    Attributes:
        ready: whether a real inference has run, and the service is not shutting down.
    """

    settings: Settings
    hosts: ModelHosts
    ready: bool = False

    def attach(self, app: FastAPI) -> None:
        """Make this the state that the routes of ``app`` see."""
        app.state.service = self


def state_of(request: Request) -> ServiceState:
    """The state of the application that serves a request."""
    state = request.app.state.service
    assert isinstance(state, ServiceState)
    return state
