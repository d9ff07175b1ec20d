from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import Response

from emboundary.service.operations.protocol import protocol_of
from emboundary.service.settings import Settings

GET = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
Serve = Callable[..., AbstractContextManager[tuple[str, int]]]


@pytest.fixture
def refused() -> Counter[str]:
    return Counter()


@pytest.fixture
def serve(refused: Counter[str]) -> Serve:
    app = FastAPI()

    @app.get("/health")
    async def health() -> str:
        return "live"

    @app.post("/body")
    async def body(request: Request) -> int:
        return len(await request.body())

    @app.post("/early")
    async def early() -> str:
        return "not read"

    @app.get("/large")
    async def large() -> Response:
        return Response(bytes(1 << 26))

    @contextlib.contextmanager
    def running(**bounds: Any) -> Iterator[tuple[str, int]]:
        protocol = protocol_of(Settings(**bounds), lambda reason: refused.update([reason]))
        server = uvicorn.Server(uvicorn.Config(app, port=0, http=protocol, ws="none", log_level="critical"))
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            while not server.started and thread.is_alive():
                time.sleep(0.005)
            yield server.servers[0].sockets[0].getsockname()
        finally:
            server.should_exit = True
            thread.join()

    return running


def ask(address: tuple[str, int], content: bytes) -> tuple[int, bytes]:
    """Send bytes and read until the server closes: the status and everything after the head."""
    with closing(socket.create_connection(address, 30)) as connection:
        with contextlib.suppress(ConnectionError):  # it may have closed before it had read all
            connection.sendall(content)
        return answer(connection)


def once(connection: socket.socket) -> int:
    """Read one answer of ``/health``, and leave the connection open: its status."""
    found = bytearray()
    while not found.endswith(b'"live"'):
        found += connection.recv(1 << 16)
    return int(found.split()[1])


def answer(connection: socket.socket) -> tuple[int, bytes]:
    found = bytearray()
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(1 << 16):
            found += part
    match = re.match(rb"HTTP/1.1 (\d{3}) ", found)
    return (int(match[1]) if match else 0), bytes(found.partition(b"\r\n\r\n")[2])


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"GET /health HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 20_000 + b"\r\n\r\n", 431),
        (b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 5_000 + b"\r\n", 431),
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431),
        (b"GET /health HTTP/1.1\r\n\r\n", 400),
        (b"GET /health HTTP/x\r\nHost: x\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost : x\r\n\r\n", 400),
        (b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST /body HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
        (b"POST /body HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40), 400),
        (b"\r\n\r\n\0\0\0\0\r\n\r\n", 400),
        (b"GET http://[ HTTP/1.1\r\nHost: x\r\n\r\n GARBAGE\r\n\r\n", 404),
    ],
)
def test_what_is_no_request_is_a_problem_and_the_end(
    serve: Serve, refused: Counter[str], content: bytes, status: int
) -> None:
    with serve() as address:
        found, body = ask(address, content)
        assert found == status
        if status != 404:
            document = json.loads(body)
            assert (document["status"], document["type"]) == (status, "about:blank")
            assert refused == {"protocol": 1}
        assert httpx.get(f"http://{address[0]}:{address[1]}/health").status_code == 200


@pytest.mark.parametrize("begun", [b"", b"G", b"GET /health HTTP/1.1\r\nHost: x\r\n"])
def test_a_head_that_does_not_come_is_408(serve: Serve, refused: Counter[str], begun: bytes) -> None:
    with serve(header_timeout_s=0.2) as address:
        status, body = ask(address, begun)
    assert status == 408
    assert "was not complete within 0.2 s" in json.loads(body)["detail"]
    assert refused == {"slow_head": 1}


def test_bytes_that_trickle_do_not_buy_time(serve: Serve, refused: Counter[str]) -> None:
    with serve(header_timeout_s=0.3) as address, closing(socket.create_connection(address, 30)) as connection:
        connection.sendall(GET[:-4])
        stop = threading.Event()

        def trickle() -> None:
            with contextlib.suppress(OSError):
                while not stop.wait(0.05):
                    connection.sendall(b"a")

        thread = threading.Thread(target=trickle)
        thread.start()
        try:
            assert answer(connection)[0] == 408
        finally:
            stop.set()
            thread.join()
    assert refused["slow_head"] == 1


def test_the_second_head_of_a_connection_has_its_time_too(serve: Serve, refused: Counter[str]) -> None:
    with serve(header_timeout_s=1) as address, closing(socket.create_connection(address, 30)) as connection:
        connection.sendall(GET)
        assert once(connection) == 200
        time.sleep(1.5)  # between requests there is no head to wait for
        connection.sendall(GET)
        assert once(connection) == 200
        assert refused == {}
        connection.sendall(GET + GET[:10])
        status, body = answer(connection)
    assert status == 200
    assert b"HTTP/1.1 408" in body
    assert refused == {"slow_head": 1}


def test_a_body_that_nobody_wants_is_cut_off(serve: Serve, refused: Counter[str]) -> None:
    with serve(header_timeout_s=0.2) as address:
        status, body = ask(address, b"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
    assert (status, body) == (200, b'"not read"')
    assert refused == {"slow_body": 1}


def test_a_body_that_comes_slowly_is_not_the_heads_fault(serve: Serve, refused: Counter[str]) -> None:
    with serve(header_timeout_s=1) as address, closing(socket.create_connection(address, 30)) as connection:
        connection.sendall(b"POST /body HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 4\r\n\r\n")
        for _ in range(4):
            time.sleep(0.4)
            connection.sendall(b"a")
        assert answer(connection) == (200, b"4")
    assert refused == {}


def test_an_answer_that_nobody_reads_is_dropped(serve: Serve, refused: Counter[str]) -> None:
    with serve(body_timeout_s=0.3) as address, closing(socket.create_connection(address, 30)) as connection:
        connection.sendall(GET.replace(b"/health", b"/large"))
        while not refused:
            time.sleep(0.01)
        assert len(answer(connection)[1]) < 1 << 26
    assert refused == {"slow_reader": 1}


def test_connections_beyond_the_bound_are_closed(serve: Serve, refused: Counter[str]) -> None:
    with serve(max_connections=3) as address, ExitStack() as stack:
        open_ones = [stack.enter_context(closing(socket.create_connection(address, 30))) for _ in range(3)]
        for connection in open_ones:
            connection.sendall(GET)
            assert once(connection) == 200
        assert ask(address, GET)[0] == 0
        assert refused == {"connections": 1}
        open_ones[0].close()
        found = 0
        while found != 200:  # the server learns of it in its own time
            found = ask(address, GET.replace(b"Host", b"Connection: close\r\nHost"))[0]
