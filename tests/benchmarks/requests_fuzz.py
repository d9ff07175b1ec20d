"""Malformed requests to a running service, by the ten thousand: ``python requests_fuzz.py --repository DIR``.

Starts ``emboundary serve`` as people start it, with a folder for jobs, and sends requests from this process over a few
connections.  Every request must be refused with a 4xx that says why in one line; an image that damage left readable may
be answered, but then with the map of what the format's own library reads from it.  Every 25th request is sound, and its
answer is compared.  Prints what was counted as one line of JSON: failures, refusals by kind, memory before and after.
Request number N of a seed is always the same one: ``--only N`` sends it alone.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import socket
import sys
import tempfile
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from threading import local
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import requests_fuzz_images as images
import requests_fuzz_texts as texts
import tifffile
from numpy.typing import NDArray
from serving_process import Service, serving

from emboundary.service.engine import OnnxEngine, find_model
from emboundary.service.preparing.intensity import Intensity
from emboundary.service.run.inference import predict_array

INTENSITY = Intensity(128.0, 45.0)
GIVEN = {"intensity": str(INTENSITY)}
CLIENTS = 4
SOUND_EVERY = 25
WARMING = 300  # requests before memory is first looked at: the runtime's and the allocator's own pools fill up
TIMEOUT_S = 60
KINDS = {
    "damaged image": 40,
    "other bytes than said": 6,
    "absurd header": 22,
    "bomb": 2,
    "query": 6,
    "header": 2,
    "path": 3,
    "job": 6,
    "v2": 10,
    "large JSON": 0.1,
    "raw bytes": 3,
}
_connections = local()


@dataclass
class Tally:
    """What came of the requests."""

    by_kind: dict[str, Counter[str]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def add(self, number: int, kind: str, status: int | str, failure: str | None) -> None:
        self.by_kind.setdefault(kind, Counter())[str(status)] += 1
        if failure is not None:
            self.failures.append(f"request {number}, {kind}: {failure}")


class Judge:
    """Says what is wrong with an answer, if anything is."""

    def __init__(self, repository: Path | None) -> None:
        model = find_model("d4", repository) if repository else find_model("d4")
        self._engine = OnnxEngine.open(model, "cpu")

    def refused(self, response: httpx.Response) -> str | None:
        """A refusal is a 4xx with one line of reason, in the shape of its protocol."""
        if not 400 <= response.status_code < 500:
            return f"answered {response.status_code}: {response.text[:300]!r}"
        if response.request.method == "HEAD":
            return None
        try:
            document = response.json()
        except ValueError:
            return f"{response.status_code} without JSON: {response.text[:300]!r}"
        if response.url.path.startswith("/v2"):
            reason = document.get("error") if set(document) == {"error"} else None
        else:
            known = response.headers["content-type"] == "application/problem+json"
            reason = document.get("detail") if known and document.get("status") == response.status_code else None
        if not isinstance(reason, str) or not reason.strip() or "\n" in reason:
            return f"{response.status_code} with no clear reason: {response.text[:300]!r}"
        told = [secret for secret in ("Traceback", "site-packages", "/tmp/", ".py") if secret in reason]
        return f"{response.status_code} tells {told}: {reason[:300]!r}" if told else None

    def answered(self, response: httpx.Response, media: str, body: bytes) -> str | None:
        """An answer must be the map of what the format's own library reads."""
        try:
            image = images.reference(media, body)
        except Exception as error:
            return f"answered {response.status_code} to what {media}'s own library refuses ({error!r:.200})"
        try:
            found = np.load(_file(response.content), allow_pickle=False)
            expected = self.expected(image)
        except Exception as error:
            return f"answered {response.status_code} to {image.dtype} {image.shape}, but: {error!r:.300}"
        if found.shape != expected.shape or found.dtype != expected.dtype:
            return f"answered {found.dtype} {found.shape} to {image.dtype} {image.shape}"
        off = int(np.abs(found.astype(int) - expected).max())
        return f"a map {off} levels off" if off > 1 else None

    def expected(self, image: NDArray[Any]) -> NDArray[np.uint8]:
        """The map that the service should give of an image."""
        stack = np.ascontiguousarray(image.reshape((-1, *image.shape[-2:])).astype(image.dtype.newbyteorder("=")))
        probability = predict_array(self._engine, stack, INTENSITY).reshape(image.shape)
        return np.rint(255 * probability).astype(np.uint8)


def send(service: Service, judge: Judge, tally: Tally, seed: str, number: int) -> None:
    """Make one request and judge its answer."""
    chance = Random(f"{seed}-{number}")
    kind = chance.choices(list(KINDS), list(KINDS.values()))[0] if number % SOUND_EVERY else "sound"
    try:
        status, failure = _KINDS[kind](service, judge, chance)
    except Exception as error:  # a connection that broke, an answer that never came
        status, failure = type(error).__name__, repr(error)[:300]
    tally.add(number, kind, status, failure)


def _client(service: Service) -> httpx.Client:
    if getattr(_connections, "url", None) != service.url:
        _connections.url = service.url
        _connections.client = httpx.Client(base_url=service.url, timeout=TIMEOUT_S)
    found: httpx.Client = _connections.client
    return found


def _sound(service: Service, judge: Judge, chance: Random) -> tuple[int, str | None]:
    media, body = chance.choice(list(images.sound().values()))
    response = _predict(service, media, body)
    if response.status_code != 200:
        return response.status_code, f"a sound {media} was answered {response.status_code}: {response.text[:300]!r}"
    return 200, judge.answered(response, media, body)


def _image(make: Any, service: Service, judge: Judge, chance: Random) -> tuple[int, str | None]:
    media, body = make(chance)
    response = _predict(service, media, body)
    if response.status_code == 200:
        return 200, judge.answered(response, media, body)
    return response.status_code, judge.refused(response)


def _predict(service: Service, media: str, body: bytes, **options: Any) -> httpx.Response:
    headers = {"Content-Type": media, "Accept": images.NPY, **options.pop("headers", {})}
    return _client(service).post("/v1/predict", content=body, headers=headers, **({"params": GIVEN} | options))


def _query(service: Service, judge: Judge, chance: Random) -> tuple[int, str | None]:
    media, body = images.sound()["npy-section"]
    return _judged(judge, _predict(service, media, body, params=texts.query(chance)))


def _header(service: Service, judge: Judge, chance: Random) -> tuple[int, str | None]:
    media, body = images.sound()["npy-section"]
    return _judged(judge, _predict(service, media, body, headers=texts.headers(chance)))


def _path(service: Service, judge: Judge, chance: Random) -> tuple[int, str | None]:
    method, path = texts.path(chance)
    raw = "".join(sign if sign.isascii() else quote(sign) for sign in path)  # as httpx itself would send it
    response = _client(service).request(method, httpx.URL(service.url).copy_with(raw_path=raw.encode()))
    return _judged(judge, response)


def _job(service: Service, judge: Judge, chance: Random) -> tuple[int, str | None]:
    body = texts.job(chance)
    response = _client(service).post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    return _judged(judge, response)


def _v2(make: Any, service: Service, judge: Judge, chance: Random) -> tuple[int, str | None]:
    headers, body = make(chance)
    return _judged(judge, _client(service).post("/v2/models/d4/infer", content=body, headers=headers))


def _judged(judge: Judge, response: httpx.Response) -> tuple[int, str | None]:
    return response.status_code, judge.refused(response)


def _raw(service: Service, _: Judge, chance: Random) -> tuple[int | str, str | None]:
    content = texts.raw(chance)
    host, _, port = service.host.partition(":")
    with socket.create_connection((host, int(port)), timeout=TIMEOUT_S) as connection:
        try:
            connection.sendall(content)
            connection.shutdown(socket.SHUT_WR)
            answer = b""
            while part := connection.recv(1 << 16):
                answer += part
        except (ConnectionResetError, BrokenPipeError):
            return "closed", None  # refused before all of it was read
    if not answer:
        return "closed", None
    status = answer.split(b" ", 2)[1].decode("latin-1") if answer.startswith(b"HTTP/1.1 ") else "none"
    refused = status.isdecimal() and 400 <= int(status) < 500
    return status, None if refused else f"{content[:200]!r} was answered {answer[:200]!r}"


_KINDS = {
    "sound": _sound,
    "damaged image": partial(_image, images.damaged),
    "other bytes than said": partial(_image, images.mistaken),
    "absurd header": partial(_image, images.absurd),
    "bomb": partial(_image, images.bomb),
    "query": _query,
    "header": _header,
    "path": _path,
    "job": _job,
    "v2": partial(_v2, texts.inference),
    "large JSON": partial(_v2, texts.large_document),
    "raw bytes": _raw,
}


def _file(content: bytes) -> Any:
    import io

    return io.BytesIO(content)


def run(count: int, seed: str, repository: Path | None, only: int | None) -> dict[str, Any]:
    """Send the requests; what was counted."""
    tally = Tally()
    environment = {"EMBOUNDARY_REPOSITORY": str(repository)} if repository else {}
    with tempfile.TemporaryDirectory() as folder:
        volumes = Path(folder) / "volumes"
        volumes.mkdir()
        tifffile.imwrite(volumes / "raw.tif", np.arange(480, dtype=np.uint8).reshape(1, 20, 24))
        environment["EMBOUNDARY_STATE_DIR"] = str(Path(folder) / "state")
        options = ["--device", "cpu", "--data-root", volumes]
        with serving(*options, environment=environment) as service, ThreadPoolExecutor(CLIENTS) as pool:
            # One core for this process: with more, the runtime's threads here would wait busily for each other.
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
            judge = Judge(repository)
            if only is not None:
                send(service, judge, tally, seed, only)
                return {"failures": tally.failures, "refusals": tally.by_kind}
            ask = partial(send, service, judge, tally, seed)
            first = min(WARMING, count // 2)
            list(pool.map(ask, range(first)))
            before = {"memory": service.memory(), "files": service.files(), "threads": service.threads()}
            service.forget_peak()
            list(pool.map(ask, range(first, count)))
            peak = service.peak()
            ready = httpx.get(f"{service.url}/health/ready").status_code
            last = Tally()
            for number in range(0, 40 * SOUND_EVERY, SOUND_EVERY):
                send(service, judge, last, f"{seed} afterwards", number)
            after = {"memory": service.memory(), "files": service.files(), "threads": service.threads()}
            log = service.log.read_text()
    return {
        "requests": count,
        "seed": seed,
        "failures": tally.failures,
        "answers": {kind: dict(sorted(found.items())) for kind, found in sorted(tally.by_kind.items())},
        "right afterwards": sum(last.by_kind["sound"].values()) - len(last.failures),
        "wrong afterwards": last.failures,
        "ready afterwards": ready == 200,
        "memory_before": before["memory"],
        "memory_after": after["memory"],
        "memory_growth": after["memory"] - before["memory"],
        "memory_peak": peak,
        "files_growth": after["files"] - before["files"],
        "threads_growth": after["threads"] - before["threads"],
        "tracebacks": log.count("Traceback"),
        "log_end": log[-2000:] if "Traceback" in log else "",
    }


def main() -> int:
    """Send, and print what was counted; 1 if a request was answered otherwise than it should be."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repository", type=Path, help="of the served models; the bundled ones where missing")
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--only", type=int, help="send only the request of this number")
    given = parser.parse_args()
    warnings.simplefilter("ignore")  # the reference libraries grumble over what they refuse
    logging.disable()
    found = run(given.count, given.seed, given.repository, given.only)
    sys.stdout.write(json.dumps(found) + "\n")
    return int(bool(found["failures"]))


if __name__ == "__main__":
    sys.exit(main())
