"""The service beside its own session, LitServe and BentoML: ``python serving.py --data STACK.tif``.

In turns of a few seconds, each in processes of its own, the others stopped (LitServe's batches take a fifth of a core
even where nothing is asked), on the same squares of 512 x 512 of real
sections:

* ``bare``: the session of ``service.engine`` in a loop, over images that are already normalised and reflected by the
  network's halo, alone and in batches; every answer thrown away.
* ``emboundary``: ``emboundary serve`` as people start it.
* ``litserve``, ``bentoml``: the same session behind them (``rivals.py``), where they are installed; LitServe also with
  batches.

Each server is asked over HTTP from another process: by one client, for the latency, then by 16 clients, for the
throughput.  A server that answers other maps than the library fails the run.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from measuring import answer, ask, in_turns, publish, ratios, spread
from serving_process import PATIENCE_S, serving
from serving_sections import SIDE, cut, prepare

from emboundary.service.engine import OnnxEngine, find_model
from emboundary.service.preparing.intensity import measure

HERE = Path(__file__).parent
CLIENTS = 16
LIMIT_S = 300  # for a request, of all servers: what is slow here must not become a refusal
SQUARES = 8
BATCHES = (1, 2)
OURS, BARE = "emboundary", "bare session"
RIVALS = {"litserve": ("litserve", 1), "litserve, batches of 4": ("litserve", 4), "bentoml": ("bentoml", 1)}


def bare(folder: Path, model: str, device: Any, seconds: float) -> None:
    """The session in a loop: p50 of one image, and images a second at the best batch."""
    engine = OnnxEngine.open(find_model(model), device)
    halo, stride = engine.footprint.halo[1], engine.footprint.stride[1]
    sections = np.load(folder / "sections.npy")
    widths = ((0, 0), (halo, halo + -SIDE % stride), (halo, halo + -SIDE % stride))
    images = np.stack([measure(s[None]).intensity.normalise(s) for s in sections])
    images = np.pad(images, widths, mode="reflect")[:, None].astype(np.float32)
    rates, latencies = {}, []
    for batch in BATCHES:
        engine.run(images[:batch])
        done, began = 0, time.perf_counter()
        while (now := time.perf_counter()) - began < seconds or done == 0:
            first = done % len(images)
            engine.run(images[first : first + batch])
            done += batch
            if batch == 1:
                latencies.append(time.perf_counter() - now)
        rates[batch] = done / (time.perf_counter() - began)
    best = max(rates, key=lambda batch: rates[batch])
    answer(p50=statistics.median(latencies), rate=rates[best], batch=best, rates=rates, shape=images[:1].shape)


@dataclass(frozen=True)
class Server:
    """A running server.

    Attributes:
        url: of its predict endpoint.
        pid: of the process that has all others of it below.
    """

    url: str
    pid: int

    def _processes(self) -> list[psutil.Process]:
        process = psutil.Process(self.pid)
        return [process, *process.children(recursive=True)]

    def stop(self) -> None:
        """Let it use no time."""
        for process in self._processes():
            process.suspend()

    def resume(self) -> None:
        """Let it run again."""
        for process in self._processes():
            process.resume()

    @contextmanager
    def going(self) -> Iterator[str]:
        """Inside, it runs; gives its URL."""
        self.resume()
        try:
            yield self.url
        finally:
            self.stop()


@contextmanager
def emboundary(model: str, device: str) -> Iterator[Server]:
    """The service."""
    environment = {"EMBOUNDARY_REQUEST_TIMEOUT_S": str(LIMIT_S)}
    with serving("--model", model, "--device", device, environment=environment) as service:
        yield Server(f"{service.url}/v1/predict", service.process.pid)


@contextmanager
def rival(name: str, batch: int, model: str, device: str) -> Iterator[Server]:
    """A rival with the same session."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
    lines = {
        "litserve": [HERE / "rivals.py", "litserve", "--port", port, "--batch", batch],
        "bentoml": ["-m", "bentoml", "serve", "rivals:Bento", "--host", "127.0.0.1", "--port", port],
    }
    environment = {
        **os.environ,
        "RIVALS_LIMIT_S": str(LIMIT_S),
        "RIVALS_MODEL": model,
        "RIVALS_DEVICE": device,
        "BENTOML_DO_NOT_TRACK": "True",
    }
    with tempfile.NamedTemporaryFile("w+", suffix=".log") as log:
        process = subprocess.Popen(
            [sys.executable, *map(str, lines[name])],
            cwd=HERE,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            _wait(f"http://127.0.0.1:{port}/{'health' if name == 'litserve' else 'readyz'}", process, Path(log.name))
            yield Server(f"http://127.0.0.1:{port}/predict", process.pid)
        finally:
            # BentoML's workers have sessions of their own and end when they are told to, LitServe's with their group.
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(PATIENCE_S)


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end and process.poll() is None:
        try:
            if httpx.get(url).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    raise RuntimeError(f"{url} did not answer: {log.read_text()[-2000:]}")


def clients(url: str, folder: Path, count: int, seconds: float) -> dict[str, Any]:
    """What so many clients saw; an answer that is not the right map is an error."""
    seen = ask([HERE / "load_clients.py", "--url", url, "--sections", folder, "--clients", count, "--seconds", seconds])
    if set(seen["answers"]) != {"200"} or seen["wrong"]:
        raise RuntimeError(f"{url} answered {seen['answers']}, {seen['wrong']} of them wrong: {seen['texts']}")
    return seen


def measured(server: Server, folder: Path, seconds: float) -> dict[str, Any]:
    """One client, then 16; first some that do not count, since what has stopped for long has cold memory."""
    with server.going() as url:
        clients(url, folder, 4, seconds / 4)
        alone, together = clients(url, folder, 1, seconds), clients(url, folder, CLIENTS, seconds)
    latencies = sorted(alone["accepted_s"])
    return {
        "p50": statistics.median(latencies),
        "p99": latencies[int(0.99 * len(latencies))],
        "rate": together["answers"]["200"] / together["elapsed"],
        "p50_together": statistics.median(together["accepted_s"]),
    }


def main() -> None:
    """Measure in turns, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="a TIFF stack of sections of at least 512 x 512")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=8, help="of each measurement")
    parser.add_argument("--model", default="d4")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        bare(given.work, given.model, given.device, given.seconds)
        return
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as running:
        folder = Path(scratch)
        prepare(folder, cut(given.data, SQUARES), given.model, given.device)
        common = ["--data", given.data, "--model", given.model, "--device", given.device, "--seconds", given.seconds]
        servers = {OURS: running.enter_context(emboundary(given.model, given.device))}
        for name, (kind, batch) in RIVALS.items():
            if find_spec(kind):
                servers[name] = running.enter_context(rival(kind, batch, given.model, given.device))
        contenders = {BARE: lambda: ask([__file__, "--work", folder, *common])}
        for name, server in servers.items():
            clients(server.url, folder, CLIENTS, 1)  # everything is warm once all have been answered
            server.stop()
            contenders[name] = lambda server=server: measured(server, folder, given.seconds)  # type: ignore[misc]
        try:
            answers = in_turns(contenders, given.rounds)
        finally:
            for server in servers.values():
                server.resume()  # who is stopped cannot end
    publish("serving", result(answers, given))


def result(answers: dict[str, list[dict[str, Any]]], given: argparse.Namespace) -> dict[str, Any]:
    """The figures, and whether they are what was promised."""
    rows = [
        {
            "contender": name,
            **{key: spread([a[key] for a in found]) for key in ("p50", "rate")},
            "p50_over_bare": spread(ratios(answers, name, BARE, "p50")),
            "rate_over_bare": spread(ratios(answers, name, BARE, "rate")),
            "rate_over_ours": spread(ratios(answers, name, OURS, "rate")),
        }
        for name, found in answers.items()
    ]
    more = [ours["p50"] - 1.15 * alone["p50"] for ours, alone in zip(answers[OURS], answers[BARE], strict=True)]
    return {
        "model": given.model,
        "device": given.device,
        "side": SIDE,
        "clients": CLIENTS,
        "rounds": given.rounds,
        "shape": answers[BARE][0]["shape"],
        "batch": [a["batch"] for a in answers[BARE]],
        "rows": rows,
        "latency_over_1.15_bare": spread(more),
        "latency_kept": statistics.median(more) <= 0.005,
        "throughput_kept": statistics.median(ratios(answers, OURS, BARE, "rate")) >= 0.9,
        "rivals_kept": all(row["rate_over_ours"]["median"] <= 1 for row in rows if row["contender"] in RIVALS),
    }


if __name__ == "__main__":
    main()
