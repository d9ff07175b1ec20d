from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import numpy as np
import pytest
import tifffile
from fsspec.asyn import sync
from fsspec.config import conf

from emboundary.service.errors import InputError
from emboundary.service.security.jail import Jail
from emboundary.service.security.redirects import held_redirects
from emboundary.service.volumes import open_volume


@contextmanager
def redirecting(target: str) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(302)
            self.send_header("Location", target + self.path)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_GET(self) -> None:
            self.do_HEAD()

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def raw(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "raw.tif", np.zeros((2, 8, 8), np.uint8), photometric="minisblack")


def read(url: str) -> tuple[int, ...]:
    """Read, and close the connections that this has opened: fsspec itself waits no longer than 0.1 s for that."""
    systems = fsspec.get_filesystem_class("http")
    before = set(systems._cache)
    try:
        with open_volume(f"{url}/raw.tif", axes="zyx") as volume:
            return volume.shape
    finally:
        for key in set(systems._cache) - before:  # those of other tests are theirs
            system = systems._cache.pop(key)
            sync(system.loop, system._session.close)


@pytest.mark.usefixtures("raw")
def test_a_redirection_is_followed_only_where_jobs_may_read(served: str) -> None:
    with redirecting(served) as url:
        assert read(url) == (2, 8, 8)  # as `emboundary predict` does
        with held_redirects(Jail([], [url, served])):
            assert read(url) == (2, 8, 8)
        with held_redirects(Jail([], [url])), pytest.raises(InputError, match="redirects to a place"):
            read(url)
    assert conf.get("http") is None
