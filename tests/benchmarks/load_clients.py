"""Clients of a running service, in a process of their own; prints what they saw as one line of JSON.

``python load_clients.py --url URL --sections FOLDER --seconds S --clients N``: N clients, each with one request at a
time (closed loop).  With ``--rate R`` instead of ``--clients``: requests at random moments, R a second on average,
whether earlier ones were answered or not (open loop), as many connections as that takes.

FOLDER holds ``sections.npy`` (n, y, x), which are sent in turn, and ``maps.npy``, what must come back, at most one grey
level off.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np

MEDIA = "application/x-npy"
TIMEOUT_S = 600


@dataclass
class Seen:
    """What came back.

    Attributes:
        answers: number of answers by status, or by the name of the exception.
        wrong: accepted requests whose answer was another map.
        accepted_s: seconds from request to answer of the accepted ones.
        refused_s: of the refused ones.
        retry_after: refusals with 429 or 503 that named a time.
        texts: a refusal of each status.
    """

    answers: Counter[str] = field(default_factory=Counter)
    wrong: int = 0
    accepted_s: list[float] = field(default_factory=list)
    refused_s: list[float] = field(default_factory=list)
    retry_after: int = 0
    texts: dict[str, str] = field(default_factory=dict)


class Clients:
    """Sends sections in turn, and compares what comes back."""

    def __init__(self, url: str, folder: Path, seed: int) -> None:
        self._maps = np.load(folder / "maps.npy").astype(np.int16)
        self._bodies = [_npy(section) for section in np.load(folder / "sections.npy")]
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        self._http = httpx.AsyncClient(timeout=TIMEOUT_S, limits=limits)
        self._url = url
        self._chance = random.Random(seed)
        self._next = 0
        self.seen = Seen()

    async def closed(self, clients: int, seconds: float) -> None:
        """So many clients, each with one request at a time."""
        end = time.perf_counter() + seconds

        async def client() -> None:
            while time.perf_counter() < end:
                await self.ask()

        await asyncio.gather(*(client() for _ in range(clients)))

    async def open(self, rate: float, seconds: float) -> None:
        """So many requests a second, whatever becomes of them."""
        due = began = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            while due - began < seconds:
                await asyncio.sleep(due - time.perf_counter())
                tasks.create_task(self.ask())
                due += self._chance.expovariate(rate)

    async def ask(self) -> None:
        """One request."""
        number = self._next % len(self._bodies)
        self._next += 1
        seen, began = self.seen, time.perf_counter()
        try:
            response = await self._http.post(
                self._url, content=self._bodies[number], headers={"Content-Type": MEDIA, "Accept": MEDIA}
            )
        except httpx.HTTPError as error:
            seen.answers[type(error).__name__] += 1
            return
        seconds = time.perf_counter() - began
        status = str(response.status_code)
        seen.answers[status] += 1
        if status == "200":
            seen.accepted_s.append(seconds)
            found = np.load(io.BytesIO(response.content), allow_pickle=False)
            right = found.dtype == np.uint8 and found.shape == self._maps[number].shape
            seen.wrong += not (right and np.abs(found - self._maps[number]).max() <= 1)
            return
        seen.refused_s.append(seconds)
        seen.retry_after += response.headers.get("retry-after", "").isdecimal()
        seen.texts.setdefault(status, response.text[:500])


def _npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


async def run(given: argparse.Namespace) -> dict[str, Any]:
    """Send for as long as asked, and wait for the last answer."""
    clients = Clients(given.url, given.sections, given.seed)
    began = time.perf_counter()
    if given.rate is not None:
        await clients.open(given.rate, given.seconds)
    else:
        await clients.closed(given.clients, given.seconds)
    return {"elapsed": time.perf_counter() - began, **clients.seen.__dict__}


def main() -> None:
    """Send, and print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", required=True)
    parser.add_argument("--sections", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    sys.stdout.write(json.dumps(asyncio.run(run(given))) + "\n")


if __name__ == "__main__":
    main()
