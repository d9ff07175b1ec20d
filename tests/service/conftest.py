"""Fixtures of the service's tests: the service running on a real port."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import uvicorn
from fastapi import FastAPI

from emboundary.service.app import create_app
from emboundary.service.settings import Settings


@contextlib.contextmanager
def _running(app: FastAPI) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.005)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="session")
def running() -> Callable[[FastAPI], AbstractContextManager[str]]:
    """Serve an application on a free port for the length of a ``with`` block; gives its URL."""
    return _running


@pytest.fixture(scope="session")
def settings(repository: Path) -> Settings:
    """The tiny models on the CPU, small tiles, bodies of at most 256 KiB."""
    return Settings(repository=repository, device="cpu", tile=24, max_body_bytes=1 << 18, max_waiting=4)


@pytest.fixture(scope="session")
def url(settings: Settings, running: Callable[[FastAPI], AbstractContextManager[str]]) -> Iterator[str]:
    """URL of a service with those settings, running for the whole session."""
    with running(create_app(settings)) as address:
        yield address
