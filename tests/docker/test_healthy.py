"""The images' health check."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType

import pytest

DOCKER = Path(__file__).parents[2] / "docker"


@pytest.fixture(scope="module")
def healthy() -> ModuleType:
    spec = importlib.util.spec_from_file_location("healthy", DOCKER / "healthy.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Replying(BaseHTTPRequestHandler):
    """200 for the host that it knows, else 421."""

    def do_GET(self) -> None:
        known = self.headers["Host"] in ("127.0.0.1", "em.example.org") and self.path == "/health/ready"
        self.send_response(200 if known else 421)
        self.end_headers()
        self.wfile.write(b"why")

    def log_message(self, *_: object) -> None:
        """Nothing to nobody."""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), Replying) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_a_service_that_is_ready_is_healthy(healthy: ModuleType, port: int) -> None:
    assert healthy.fault({"EMBOUNDARY_PORT": str(port)}) == ""
    hosts = "em.example.org, other.example.org"
    assert healthy.fault({"EMBOUNDARY_PORT": str(port), "EMBOUNDARY_ALLOWED_HOSTS": hosts}) == ""


def test_a_service_that_is_not_ready_is_ill_and_the_reason_is_told(healthy: ModuleType, port: int) -> None:
    fault = healthy.fault({"EMBOUNDARY_PORT": str(port), "EMBOUNDARY_ALLOWED_HOSTS": "another"})
    assert fault == "421: why"


def test_silence_is_ill(healthy: ModuleType) -> None:
    with HTTPServer(("127.0.0.1", 0), Replying) as closed:
        unused = closed.server_port
    assert healthy.fault({"EMBOUNDARY_PORT": str(unused)}).startswith(f"port {unused} does not answer: ")
