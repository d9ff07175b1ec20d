"""Questions to a running service, with Python's own library alone."""

from __future__ import annotations

import json
import socket
import struct
import urllib.error
import urllib.request
import zlib
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any

_GO_AHEAD = b"HTTP/1.1 100 Continue\r\n\r\n"


@dataclass(frozen=True)
class Answer:
    """Status and body of an answer."""

    status: int
    body: bytes

    @property
    def document(self) -> Any:
        """The body, which is JSON."""
        return json.loads(self.body)


def ask(url: str, key: str = "", body: bytes | None = None, content_type: str = "image/png") -> Answer:
    """GET, or POST where there is a body."""
    headers = {"Content-Type": content_type} if body is not None else {}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=60) as answer:
            return Answer(answer.status, answer.read())
    except urllib.error.HTTPError as error:
        return Answer(error.code, error.read())


class HeldRequest:
    """A POST whose body is kept back once the service has begun to read it: it is in flight for certain."""

    def __init__(self, port: int, path: str, key: str, body: bytes) -> None:
        self._body = body
        self._connection = HTTPConnection("127.0.0.1", port, timeout=60)
        self._connection.putrequest("POST", path)
        headers = {"Content-Type": "image/png", "Content-Length": len(body), "Expect": "100-continue"}
        for name, value in {**headers, "Authorization": f"Bearer {key}"}.items():
            self._connection.putheader(name, str(value))
        self._connection.endheaders()
        told = self._connection.sock.recv(len(_GO_AHEAD), socket.MSG_WAITALL)
        if told != _GO_AHEAD:
            raise ConnectionError(f"in place of a go-ahead came {told!r}")

    def finish(self) -> Answer:
        """Send the body."""
        self._connection.send(self._body)
        answer = self._connection.getresponse()
        return Answer(answer.status, answer.read())


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def section(side: int) -> bytes:
    """A square PNG of 8 bits with stripes."""
    rows = b"".join(b"\0" + bytes((7 * x + 3 * y) % 251 for x in range(side)) for y in range(side))
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
