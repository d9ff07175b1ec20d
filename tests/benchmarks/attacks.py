"""Attacks on a service, and what each got: ``python attacks.py``.

Starts ``emboundary serve`` with keys, a data root and a URL prefix, beside a file that must stay secret, and tries in
turn to read or write outside the root, to make the service ask others, to guess keys, to use up its connections, memory
or time, and to make it say too much.  Every attack names what it must get; afterwards the service must answer right.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import h5py
import httpx
import numpy as np
import requests_fuzz_images as images
import tifffile
import zarr
from measuring import publish, say
from serving_process import Service, serving

KEYS = {"everything": "predict+jobs+admin", "images": "predict"}
SECRET = "TOP-SECRET-5d1f"
GUESSES = 2000
SLOW_S = 3  # header and body timeouts are set to this
CONNECTIONS = 64  # at most, likewise
REFUSED = frozenset({"400", "401", "403", "404", "405", "408", "413", "415", "421", "422", "429", "431", "closed"})


@dataclass(frozen=True)
class Got:
    """What an attack got.

    Attributes:
        answers: statuses, or ``closed``.
        text: bodies and headers, in which no secret may stand.
        note: what else was measured.
    """

    answers: tuple[str, ...]
    text: str = ""
    note: str = ""


@dataclass(frozen=True)
class Attack:
    """One attack.

    Attributes:
        group: its kind.
        name: what is tried.
        run: does it.
        wanted: answers that it may get.
        sent: what it says, which an answer may repeat.
    """

    group: str
    name: str
    run: Callable[[], Got]
    wanted: frozenset[str] = REFUSED
    sent: str = ""


class Target:
    """A running service, and everything that lies beside it."""

    def __init__(self, service: Service, folder: Path, web: str) -> None:
        self.service = service
        self.root = folder / "root"
        self.outside = folder / "outside"
        self.web = web
        self.key = key_of("everything")
        self.http = httpx.Client(base_url=service.url, timeout=60, headers={"Authorization": f"Bearer {self.key}"})

    def ask(self, method: str, path: str, **options: Any) -> Got:
        """One request with a key that may do everything."""
        return got(self.http.request(method, path, **options))

    def job(self, **changes: Any) -> Got:
        """Submit a job; one that is accepted is followed to its end, which must be a failure."""
        response = self.http.post("/v1/jobs", json={"input": "raw.tif", "output": "map.zarr", **changes})
        if response.status_code != 202:
            return got(response)
        until = time.monotonic() + 60
        while (job := self.http.get(response.headers["location"]).json())["state"] in ("queued", "running"):
            if time.monotonic() > until:
                return Got(("202, never ended",), json.dumps(job))
            time.sleep(0.05)
        return Got((f"202, {job['state']}",), json.dumps(job | {"request": None}))

    def raw(self, content: bytes, *, pause_s: float = 0, wait_s: float = 30) -> Got:
        """Bytes on the wire, all at once or byte by byte."""
        host, _, port = self.service.host.partition(":")
        began = time.monotonic()
        answer = b""
        with socket.create_connection((host, int(port)), timeout=wait_s) as connection:
            try:
                for part in [content[n : n + 1] for n in range(len(content))] if pause_s else [content]:
                    connection.sendall(part)
                    if pause_s:
                        connection.settimeout(pause_s)
                        try:
                            answer = connection.recv(1 << 16)
                            break
                        except TimeoutError:
                            connection.settimeout(wait_s)
                while not pause_s and (part := connection.recv(1 << 16)):
                    answer += part
            except TimeoutError:
                return Got(("open",), note=f"after {wait_s:g} s")
            except OSError:
                pass
        status = answer.split(b" ", 2)[1].decode("latin-1") if answer.startswith(b"HTTP/1.1 ") else "closed"
        return Got((status,), answer.decode("latin-1"), f"after {time.monotonic() - began:.1f} s")


def got(response: httpx.Response) -> Got:
    """An answer, with all that it says."""
    return Got((str(response.status_code),), f"{response.headers}\n{response.text[:5000]}")


def key_of(name: str) -> str:
    """A key as long as real ones."""
    return f"emb_{hashlib.sha256(name.encode()).hexdigest()}"


# -- out of the data root ----------------------------------------------------------------------------------------------


def prepare(folder: Path) -> None:
    """A data root with links that lead out of it, and the secret beside it."""
    root, outside = folder / "root", folder / "outside"
    for place in (root / "in", outside, folder / "root-evil"):
        place.mkdir(parents=True)
    array = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64).astype(np.uint8)
    for place in (root, outside, folder / "root-evil"):
        tifffile.imwrite(place / "raw.tif", array)
    (outside / "secret.txt").write_text(SECRET)
    (root / "link.tif").symlink_to(outside / "raw.tif")
    (root / "link").symlink_to(outside)
    (root / "loop").symlink_to(root / "loop")
    zarr.create_array(root / "linked.zarr", data=array[None], chunks=(1, 64, 64), dimension_names=["z", "y", "x"])
    chunk = next(p for p in (root / "linked.zarr" / "c").rglob("*") if p.is_file())
    chunk.unlink()
    chunk.symlink_to(outside / "secret.txt")
    with h5py.File(outside / "outside.h5", "w") as file:
        file["v"] = array[None]
    with h5py.File(root / "external.h5", "w") as file:
        file["v"] = h5py.ExternalLink(str(outside / "outside.h5"), "v")
    with h5py.File(root / "raw.h5", "w") as file:
        file.create_dataset("v", (1, 64, 64), "u1", external=[(str(outside / "secret.txt"), 0, 4096)])
    with h5py.File(root / "virtual.h5", "w") as file:
        layout = h5py.VirtualLayout((1, 64, 64), "u1")
        layout[:] = h5py.VirtualSource(str(outside / "outside.h5"), "v", (1, 64, 64))
        file.create_virtual_dataset("v", layout)


def traversals(target: Target) -> dict[str, str]:
    """Names of a file outside the root, in many forms."""
    outside = target.outside / "raw.tif"
    return {
        "absolute": str(outside),
        "dot dot": "../outside/raw.tif",
        "dot dot inside a name": "in/../../outside/raw.tif",
        "from the root's own path": f"{target.root}/../outside/raw.tif",
        "prefix of the root's name": f"{target.root}-evil/raw.tif",
        "double slashes": "..//..//outside//raw.tif",
        "dots and slashes": "....//....//outside/raw.tif",
        "backslashes": "..\\outside\\raw.tif",
        "percent-encoded": "%2e%2e/outside/raw.tif",
        "percent-encoded slash": "..%2foutside%2fraw.tif",
        "encoded twice": "%252e%252e%252foutside/raw.tif",
        "overlong UTF-8": "%c0%ae%c0%ae/outside/raw.tif",
        "full-width dots": "\uff0e\uff0e/outside/raw.tif",
        "NUL behind an allowed name": "raw.tif\0/../../outside/raw.tif",
        "line end": "raw.tif\n../outside/raw.tif",
        "home": "~/raw.tif",
        "home of root": "~root/.ssh/id_rsa",
        "variable": "$HOME/raw.tif",
        "file URL": f"file://{outside}",
        "file URL in capitals": f"FILE://{outside}",
        "local URL": f"local://{outside}",
        "chained URL": f"simplecache::file://{outside}",
        "zip inside": f"zip://raw.tif::file://{outside}",
        "dataset of a file outside": f"{target.outside}/outside.h5::/v",
        "dataset that leads on": "external.h5::/v/../../outside",
        "proc": "/proc/self/environ",
        "through proc": f"/proc/self/root{outside}",
        "very long": "../" * 2000 + "etc/passwd",
    }


def paths(target: Target) -> Iterator[Attack]:
    """Reading and writing outside the data root."""
    for name, text in traversals(target).items():
        yield Attack("path traversal, input", name, lambda text=text: target.job(input=text), sent=text)
    outputs = {
        "absolute": str(target.outside / "map.zarr"),
        "dot dot": "../outside/map.zarr",
        "prefix of the root's name": f"{target.root}-evil/map.zarr",
        "through a link": "link/map.zarr",
        "percent-encoded": "..%2foutside%2fmap.zarr",
        "NUL": "map.zarr\0.tif",
        "file URL": f"file://{target.outside}/map.zarr",
        "over a link to a file": "link.tif",
        "a hidden name": ".raw.tif.partial/map.zarr",
    }
    for name, text in outputs.items():
        run = lambda text=text: target.job(output=text, overwrite=True)  # noqa: E731
        yield Attack("path traversal, output", name, run, sent=text)
    for name, text in {
        "to a file outside": "link.tif",
        "to a folder outside": "link/raw.tif",
        "to itself": "loop",
        "of a Zarr's chunk": "linked.zarr",
        "external link of HDF5": "external.h5::/v",
        "external storage of HDF5": "raw.h5::/v",
        "virtual dataset of HDF5": "virtual.h5::/v",
    }.items():
        wanted = REFUSED | {"202, failed"}
        yield Attack("link out of the root", name, lambda text=text: target.job(input=text, output="l.zarr"), wanted)
    get = "GET {} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {}\r\nConnection: close\r\n\r\n"
    for path in ("/../../etc/passwd", "/..%2f..%2fetc%2fpasswd", "/docs/../../etc/passwd", "/docs/%2e%2e/settings.py"):
        run = lambda path=path: target.raw(get.format(path, target.key).encode())  # noqa: E731
        yield Attack("path traversal, URL", path, run)
    for name in ("../../../etc/passwd", "..%2f..%2foutside", "/etc/passwd", "d4/../../plain", "d4\0"):
        yield Attack("path traversal, model", repr(name), lambda name=name: target.job(model=name))


# -- requests that the service is to make ------------------------------------------------------------------------------


class _Web(BaseHTTPRequestHandler):
    """The host whose URLs are allowed; it redirects to where it is told."""

    asked: list[str]
    redirect = ""

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if "redirect" in self.path and self.redirect:
            self.send_response(302)
            self.send_header("Location", self.redirect)
        else:
            self.send_response(404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None: ...


@contextmanager
def web(redirect: str = "") -> Iterator[tuple[str, list[str]]]:
    """A web server; its address, and what it was asked for."""
    asked: list[str] = []
    handler = type("Handler", (_Web,), {"asked": asked, "redirect": redirect})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


def requests_elsewhere(target: Target, elsewhere: str, asked: list[str]) -> Iterator[Attack]:
    """Server-side request forgery."""
    port = target.web.rpartition(":")[2]
    urls = {
        "another port of this machine": f"{elsewhere}/v.zarr",
        "the service itself": f"{target.service.url}/metrics",
        "metadata service": "http://169.254.169.254/latest/meta-data/",
        "metadata service, as a number": "http://2852039166/latest/meta-data/",
        "metadata service, hexadecimal": "http://0xa9fea9fe/",
        "metadata service, IPv6": "http://[fd00:ec2::254]/latest/",
        "metadata service, mapped": "http://[::ffff:169.254.169.254]/latest/",
        "metadata service, by name": "http://metadata.google.internal/computeMetadata/v1/",
        "prefix as user name": f"{target.web}@{elsewhere.removeprefix('http://')}/v.zarr",
        "prefix of the host's name": f"http://127.0.0.1:{port}.evil.example/allowed/v.zarr",
        "prefix of the path's name": f"{target.web}/allowed-not/v.zarr",
        "out of the prefix": f"{target.web}/allowed/../v.zarr",
        "out of the prefix, encoded": f"{target.web}/allowed/%2e%2e/v.zarr",
        "fragment": f"{elsewhere}/v.zarr#{target.web}/allowed/",
        "backslash": f"{target.web}\\@{elsewhere.removeprefix('http://')}/v.zarr",
        "another scheme": "gopher://127.0.0.1:1/_x",
        "ftp": "ftp://127.0.0.1/v.zarr",
        "chained": f"simplecache::{elsewhere}/v.zarr",
        "chained behind an allowed one": f"{target.web}/allowed/a.zip::{elsewhere}/v.zarr",
        "redirection": f"{target.web}/allowed/redirect.zarr",
        "redirection of a TIFF": f"{target.web}/allowed/redirect.tif",
    }

    def forge(url: str) -> Got:
        before = len(asked)
        found = target.job(input=url, output="s.zarr")
        if len(asked) != before:
            return Got(("asked elsewhere",), found.text, asked[-1])
        return found

    for name, url in urls.items():
        yield Attack("request forgery (SSRF)", name, lambda url=url: forge(url), REFUSED | {"202, failed"})


# -- keys --------------------------------------------------------------------------------------------------------------


def keys(target: Target) -> Iterator[Attack]:
    """Doing without a key, or with one that does not suffice."""
    url, right = target.service.url, target.key
    body = images.sound()["npy-section"][1]
    calls = [
        ("POST", "/v1/predict"),
        ("GET", "/v1/models"),
        ("POST", "/v1/jobs"),
        ("GET", "/v1/jobs"),
        ("GET", "/metrics"),
    ]
    calls += [("GET", "/v2"), ("POST", "/v2/models/d4/infer"), ("POST", "/v2/repository/models/plain/unload")]

    def without(headers: dict[str, str]) -> Got:
        found = [
            httpx.request(m, f"{url}{p}", headers=headers, content=body if m == "POST" else None) for m, p in calls
        ]
        return Got(tuple(str(r.status_code) for r in found), "\n".join(r.text for r in found))

    forms = {
        "none": {},
        "empty": {"X-API-Key": ""},
        "no more than its kind": {"Authorization": "Bearer"},
        "another scheme": {"Authorization": f"Basic {right}"},
        "a part of it": {"Authorization": f"Bearer {right[:-1]}"},
        "in capitals": {"X-API-Key": right.upper()},
        "its sum": {"X-API-Key": hashlib.sha256(right.encode()).hexdigest()},
        "its name": {"X-API-Key": "everything"},
        "the whole line": {"X-API-Key": f"everything:predict:{hashlib.sha256(right.encode()).hexdigest()}"},
        "SQL": {"X-API-Key": "' OR 1=1 --"},
        "very long": {"X-API-Key": "x" * 9000},
        "as another header": {"Cookie": f"key={right}", "X-Api-Token": right},
    }
    for name, headers in forms.items():
        yield Attack(
            "keys", f"{name}, {len(calls)} calls", lambda headers=headers: without(headers), frozenset({"401"})
        )
    yield Attack(
        "keys",
        "in the query",
        lambda: got(httpx.get(f"{url}/v1/models?key={right}&api_key={right}")),
        frozenset({"401"}),
    )

    def beyond() -> Got:
        some = {"X-API-Key": key_of("images")}
        found = [httpx.request(m, f"{url}{p}", headers=some) for m, p in calls if "jobs" in p or "repository" in p]
        found.append(httpx.get(f"{url}/metrics", headers=some))
        return Got(tuple(str(r.status_code) for r in found), "\n".join(r.text for r in found))

    yield Attack("keys", "one for images alone: jobs, models, metrics", beyond, frozenset({"403"}))

    def guess() -> Got:
        statuses = set()
        with httpx.Client(base_url=url) as client:
            began = time.perf_counter()
            for number in range(GUESSES):
                guessed = f"emb_{hashlib.sha256(str(number).encode()).hexdigest()}"
                statuses.add(str(client.get("/v1/models", headers={"X-API-Key": guessed}).status_code))
            seconds = time.perf_counter() - began
        return Got(tuple(statuses), note=f"{GUESSES} guesses of 2^256, {GUESSES / seconds:.0f} a second")

    yield Attack("keys", "guessing", guess, frozenset({"401"}))

    def clock() -> Got:
        """Whether guesses that begin like the key take longer to refuse."""
        near, far = right[:-1] + "!", "x" * len(right)
        times: dict[str, list[float]] = {near: [], far: []}
        statuses = set()
        with httpx.Client(base_url=url) as client:
            for _ in range(GUESSES // 4):
                for guessed, taken in times.items():
                    began = time.perf_counter()
                    statuses.add(str(client.get("/v1/models", headers={"X-API-Key": guessed}).status_code))
                    taken.append(time.perf_counter() - began)
        medians = [1e6 * statistics.median(taken) for taken in times.values()]
        return Got(tuple(statuses), note=f"median {medians[0]:.0f} us beside {medians[1]:.0f} us for one wholly wrong")

    yield Attack("keys", "timing of one that is right but for its last sign", clock, frozenset({"401"}))


# -- the wire ----------------------------------------------------------------------------------------------------------


def wire(target: Target) -> Iterator[Attack]:
    """Heads, slowness, smuggling and other hosts."""
    key = f"X-API-Key: {target.key}\r\n"
    head = f"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-npy\r\n{key}"
    get = f"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{key}"
    heads = {
        "a header of 1 MB": f"{get}X: {'a' * 1_000_000}\r\n\r\n",
        "100,000 headers": get + "X-A: b\r\n" * 100_000 + "\r\n",
        "a path of 1 MB": f"GET /{'a' * 1_000_000} HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "two lengths": f"{head}Content-Length: 1\r\nContent-Length: 900\r\n\r\nx",
        "length and chunks": f"{head}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /admin",
        "chunk size beyond 64 bit": f"{head}Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nx",
        "length of 10^30": f"{head}Content-Length: 1{'0' * 30}\r\n\r\nx",
        "length below 0": f"{head}Content-Length: -1\r\n\r\nx",
        "space before a colon": f"{head.replace('Host:', 'Host :')}Content-Length: 0\r\n\r\n",
        "line end inside a header": f"{get}X-Request-Id: a\r\nX-Evil: 1\r\n b\r\nHost: evil\r\n\r\n",
        "no request at all": "\0" * 1000 + "\r\n\r\n",
        "TLS": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    }
    for name, content in heads.items():
        yield Attack("wire", name, lambda content=content: target.raw(content.encode("latin-1")))
    slow = "a head that comes byte by byte"
    yield Attack("wire", slow, lambda: target.raw(get.encode() + b"X: " + b"a" * 999, pause_s=0.5))
    body = f"{head}Content-Length: 9000\r\n\r\n".encode()
    yield Attack("wire", "a body that stops", lambda: target.raw(body + b"x" * 10))
    yield Attack("wire", "a connection that says nothing", lambda: target.raw(b""))

    def crowd() -> Got:
        host, _, port = target.service.host.partition(":")
        idle = [socket.create_connection((host, int(port)), timeout=30) for _ in range(CONNECTIONS + 30)]
        time.sleep(0.5)
        try:
            over = idle[-1]
            over.settimeout(5)
            try:
                ended = over.recv(1 << 12)
            except TimeoutError:
                return Got(("open",))
            except OSError:
                ended = b""
            status = ended.split(b" ")[1].decode() if ended.startswith(b"HTTP/1.1 ") else "closed"
            time.sleep(SLOW_S + 1)
            again = target.http.get("/health/live").status_code
            return Got((status,), note=f"and {again} again once their time was over")
        finally:
            for connection in idle:
                connection.close()

    refused = REFUSED | {"503"}
    yield Attack("wire", f"{CONNECTIONS + 30} connections that say nothing, {CONNECTIONS} allowed", crowd, refused)

    def host(name: str) -> Callable[[], Got]:
        return lambda: got(httpx.get(f"{target.service.url}/openapi.json", headers={"Host": name}))

    yield Attack("wire", "another Host (DNS rebinding), with keys set", host("evil.example"), frozenset({"200", "421"}))


def browser(target: Target) -> Iterator[Attack]:
    """What a page of another origin can do."""
    origin = {"Origin": "https://evil.example"}

    def preflight() -> Got:
        asked = {**origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
        response = httpx.options(f"{target.service.url}/v1/predict", headers=asked)
        allowed = response.headers.get("access-control-allow-origin")
        return Got((str(response.status_code) if allowed is None else f"allows {allowed}",), response.text)

    def simple() -> Got:
        response = target.http.get("/v1/models", headers=origin)
        allowed = response.headers.get("access-control-allow-origin")
        return Got(("no CORS" if allowed is None else f"allows {allowed}",))

    def frame() -> Got:
        headers = target.http.get("/health/live").headers
        wanted = ("content-security-policy", "x-content-type-options", "x-frame-options", "referrer-policy")
        return Got(tuple(name for name in wanted if name not in headers) or ("all set",))

    yield Attack("browser", "preflight of another origin", preflight)
    yield Attack("browser", "reading from another origin", simple, frozenset({"no CORS"}))
    yield Attack("browser", "frames, sniffing, referrers: headers", frame, frozenset({"all set"}))


# -- contents ----------------------------------------------------------------------------------------------------------


def contents(target: Target) -> Iterator[Attack]:
    """Bodies that would run, grow, or reach out."""

    def send(media: str, body: bytes) -> Got:
        service = target.service
        service.forget_peak()
        before = service.memory()
        headers = {"Content-Type": media, "Accept": images.NPY}
        found = target.http.post("/v1/predict?intensity=128,45", content=body, headers=headers)
        grown = max(0, service.peak() - before) / 1e6
        return Got((str(found.status_code),), found.text if found.status_code != 200 else "", f"{grown:.0f} MB at most")

    names = (
        "PNG of 12,000 x 12,000 pixels in 140 KB",
        "PNG whose pixels inflate to 100 MB",
        "PNG whose text inflates to 100 MB",
        "PNG whose profile inflates to 100 MB",
        "PNG of 20,000 texts",
        "TIFF of 80 MB, deflated",
        "TIFF of 80 MB, by LZMA",
        "TIFF whose strip inflates to 100 MB",
        "TIFF whose strip inflates to 200 MB, by Zstandard",
        "TIFF whose strip inflates to 64 MB, by LZMA",
        "TIFF whose directory follows itself",
        "TIFF of 20,000 directories",
        "OME-XML of a billion laughs",
        "OME-XML that names a file (XXE)",
        "TIFF that says to have 10^24 voxels",
        "TIFF that says to have 2,000,000,000 sections",
        "npy of 2 million sections of one voxel",
        "npy of one row of 32 MB",
        "npy whose header has 8 MB of brackets",
        "npy whose header is said to have 4 GB",
        "npy of Python objects (pickle)",
        "65 MB of zeros",
    )
    # What stands beside sound pixels may be passed over; the answer is then the map of those pixels.
    beside = frozenset({"200", *REFUSED})
    for number, name in enumerate(names):
        media, body = images.bomb_of(number)
        yield Attack("contents", name, lambda media=media, body=body: send(media, body), beside)

    def load() -> Got:
        """A pickle that would leave a file behind, as an object array."""
        marker = target.outside / "ran"

        class Run:
            def __reduce__(self) -> tuple[Any, ...]:
                return (os.mkdir, (str(marker),))

        found = send(images.NPY, images.npy(np.array([Run()], dtype=object), allow_pickle=True))
        return Got(("ran",)) if marker.exists() else found

    yield Attack("contents", "pickle that makes a folder", load)

    def deep(path: str) -> Got:
        return target.ask("POST", path, content=b"[" * 1_000_000, headers={"Content-Type": "application/json"})

    for path in ("/v2/models/d4/infer", "/v1/jobs", "/v2/repository/index"):
        yield Attack("contents", f"1,000,000 brackets to {path}", lambda path=path: deep(path))


def main() -> int:
    """Attack, and write the table; 1 if one of them got what it wanted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help="groups whose names hold this")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, web() as (elsewhere, asked), web(f"{elsewhere}/stolen") as (ours, _):
        folder = Path(scratch).resolve()
        prepare(folder)
        lines = [f"{n}:{s}:{hashlib.sha256(key_of(n).encode()).hexdigest()}" for n, s in KEYS.items()]
        environment = {
            "EMBOUNDARY_API_KEYS": ",".join(lines),
            "EMBOUNDARY_STATE_DIR": str(folder / "state"),
            "EMBOUNDARY_HEADER_TIMEOUT_S": str(SLOW_S),
            "EMBOUNDARY_BODY_TIMEOUT_S": str(SLOW_S),
            "EMBOUNDARY_MAX_CONNECTIONS": str(CONNECTIONS),
        }
        options = ["--device", "cpu", "--data-root", folder / "root", "--url-prefix", f"{ours}/allowed/"]
        with serving(*options, environment=environment) as service:
            target = Target(service, folder, ours)
            before = service.memory()
            rows = [attack(a, target) for a in attacks(target, elsewhere, asked) if (given.only or "") in a.group]
            growth = service.memory() - before
            media, body = images.sound()["npy-section"]
            last = target.http.post("/v1/predict", content=body, headers={"Content-Type": media})
            log = service.log.read_text()
        written = sorted(str(p.relative_to(folder / "outside")) for p in (folder / "outside").rglob("*"))
    secrets = [key_of(name) for name in KEYS]
    result = {
        "rows": rows,
        "held": all(row["held"] for row in rows),
        "outside_untouched": written == ["outside.h5", "raw.tif", "secret.txt"],
        "well_afterwards": last.status_code == 200,
        "memory_growth": growth,
        "log_keeps_secrets": not any(secret in log for secret in (*secrets, SECRET, scratch)),
        "tracebacks_in_log": log.count("Traceback"),
    }
    publish("attacks", result)
    for row in rows:
        if not row["held"]:
            say(f"NOT HELD: {row}")
    return int(not result["held"])


def attacks(target: Target, elsewhere: str, asked: list[str]) -> Iterator[Attack]:
    """All of them."""
    yield from paths(target)
    yield from requests_elsewhere(target, elsewhere, asked)
    yield from keys(target)
    yield from wire(target)
    yield from browser(target)
    yield from contents(target)


def attack(tried: Attack, target: Target) -> dict[str, Any]:
    """Try one; what it got, and whether that is all right."""
    try:
        found = tried.run()
    except Exception as error:
        found = Got((type(error).__name__,), note=repr(error)[:200])
    secrets = (SECRET, str(target.root.parent), "Traceback", "root:x:", "site-packages")
    told = [secret for secret in secrets if secret in found.text and secret not in tried.sent]
    answers = sorted(set(found.answers))
    row = {
        "group": tried.group,
        "attack": tried.name,
        "got": ", ".join(answers),
        "note": found.note,
        "told": told,
        "held": set(answers) <= tried.wanted and not told and bool(answers),
    }
    say(str(row))
    return row


if __name__ == "__main__":
    sys.exit(main())
