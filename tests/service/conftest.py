"""Fixtures of the service's tests: the service running on a real port, and a web server that hands out files."""

from __future__ import annotations

import contextlib
import io
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI
from numpy.typing import NDArray

from emboundary.service.app import create_app
from emboundary.service.engine import OnnxEngine
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
    return Settings(repository=repository, device="cpu", tile=24, max_body_bytes=1 << 18, queue_tiles=512)


@pytest.fixture(scope="session")
def url(settings: Settings, running: Callable[[FastAPI], AbstractContextManager[str]]) -> Iterator[str]:
    """URL of a service with those settings, running for the whole session."""
    with running(create_app(settings)) as address:
        yield address


@pytest.fixture(scope="session")
def serving_jobs(
    settings: Settings,
    running: Callable[[FastAPI], AbstractContextManager[str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[Path], AbstractContextManager[str]]:
    """Like ``running``, for a service that runs jobs in a folder."""

    def serve(data: Path) -> AbstractContextManager[str]:
        places = {"data_roots": (data,), "state_dir": tmp_path_factory.mktemp("state")}
        return running(create_app(settings.model_copy(update=places)))

    return serve


class _Files(SimpleHTTPRequestHandler):
    """Hands out files, or one range of bytes of them, as every object store does; without a log."""

    ranges = True

    def send_head(self) -> io.BytesIO | BinaryIO | None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        path = Path(self.translate_path(self.path))
        if not (self.ranges and asked and path.is_file()):
            return super().send_head()
        content = path.read_bytes()
        first, last = int(asked[1]), min(int(asked[2] or len(content)), len(content) - 1)
        if first >= len(content):
            self.send_error(416)
            return None
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.send_header("Content-Length", str(last + 1 - first))
        self.end_headers()
        return io.BytesIO(content[first : last + 1])

    def end_headers(self) -> None:
        self.send_header("Accept-Ranges", "bytes" if self.ranges else "none")
        super().end_headers()

    def log_message(self, *_: object) -> None: ...


class _WholeFiles(_Files):
    """Hands out files whole alone."""

    ranges = False


@contextlib.contextmanager
def _serving(handler: type[_Files], folder: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """URL of a web server that hands out the test's folder."""
    with _serving(_Files, tmp_path) as address:
        yield address


@pytest.fixture
def served_whole(tmp_path: Path) -> Iterator[str]:
    """URL of a web server that hands out the test's files, but no parts of them."""
    with _serving(_WholeFiles, tmp_path) as address:
        yield address


class Gate:
    """Lets some runs of every network through and holds the next until it is opened; only in this process."""

    def __init__(self) -> None:
        self._left = 0
        self._lock = threading.Lock()
        self._open = threading.Event()
        self._open.set()
        self.reached = threading.Event()

    def close(self, after: int = 0) -> None:
        """Hold the run that follows so many more."""
        self._left = after
        self.reached.clear()
        self._open.clear()

    def open(self) -> None:
        """Hold nothing any more."""
        self._open.set()

    def wait(self) -> None:
        """Return when a run is held."""
        assert self.reached.wait(60)

    def pass_through(self) -> None:
        if not self._open.is_set():
            with self._lock:
                self._left -= 1
                held = self._left < 0
            if held:
                self.reached.set()
                assert self._open.wait(60)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """A gate, open at first, that all networks run through."""
    gate, run = Gate(), OnnxEngine.run

    def gated(self: OnnxEngine, images: NDArray[np.float32]) -> NDArray[np.float32]:
        gate.pass_through()
        return run(self, images)

    monkeypatch.setattr(OnnxEngine, "run", gated)
    yield gate
    gate.open()
