"""More requests than the service can answer, for a minute, from another process: ``python load.py --data STACK.tif``.

One service process per queue, as people start it, and squares of 512 x 512 of real sections.  In order: one client
alone (the unloaded latency); 16 clients together (the capacity); 20 clients for a minute (memory); requests at random
moments, four times as many as the capacity, for a minute; one client alone again.  Every answer must be the right map,
or 429 or 504 at once.  Accepted requests may take twice the unloaded p99, and what a full queue takes: the time that
the device needs for ``queue_tiles`` tiles, or the time after which requests are dropped, whichever is less.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
from measuring import ask, publish, say
from serving_process import Service, serving
from serving_sections import SIDE, cut, prepare

HERE = Path(__file__).parent
SQUARES = 8
TIMES_CAPACITY = 4
CONCURRENCY = 20
MOST_GROWTH = 100_000_000
ALLOWED = {"200", "429", "504"}


def share(values: list[float], part: float) -> float:
    """The value that this part of all does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


class Load:
    """One service under load, phase by phase.

    Args:
        service: the process that is asked.
        folder: holds the sections and their maps.
    """

    def __init__(self, service: Service, folder: Path) -> None:
        self._service = service
        self._folder = folder
        self.phases: list[dict[str, Any]] = []

    def phase(self, name: str, seconds: float, **options: float) -> dict[str, Any]:
        """Ask for so long; what was seen, and memory before, after and at most."""
        service = self._service
        before = service.memory()
        service.forget_peak()
        flags = [part for key, value in options.items() for part in (f"--{key}", value)]
        url = f"{service.url}/v1/predict"
        seen = ask(
            [HERE / "load_clients.py", "--url", url, "--sections", self._folder, "--seconds", seconds, *flags],
        )
        peak = service.peak()
        time.sleep(1)  # what the last answers held is given back
        accepted, refused = seen["accepted_s"], seen["refused_s"]
        found = {
            "phase": name,
            **options,
            "elapsed": seen["elapsed"],
            "answers": seen["answers"],
            "wrong": seen["wrong"],
            "rate": len(accepted) / seen["elapsed"],
            "p50": statistics.median(accepted) if accepted else None,
            "p99": share(accepted, 0.99) if accepted else None,
            "refused_p99": share(refused, 0.99) if refused else None,
            "retry_after": seen["retry_after"],
            "refusals": seen["texts"],
            "memory_before": before,
            "memory_after": service.memory(),
            "memory_peak": peak,
        }
        say(str(found))
        self.phases.append(found)
        return found


def loaded(folder: Path, model: str, device: str, queue_tiles: int | None, seconds: float) -> dict[str, Any]:
    """All phases on one service."""
    environment = {} if queue_tiles is None else {"EMBOUNDARY_QUEUE_TILES": str(queue_tiles)}
    with serving("--model", model, "--device", device, environment=environment) as service:
        at_start = service.memory()
        limits = httpx.get(f"{service.url}/v1/models").json()["models"][0]["limits"]
        load = Load(service, folder)
        load.phase("warm", 5, clients=CONCURRENCY)
        alone = load.phase("one client", seconds / 2, clients=1)
        together = load.phase("16 clients", seconds / 2, clients=16)
        crowd = load.phase(f"{CONCURRENCY} clients", seconds, clients=CONCURRENCY)
        rate = TIMES_CAPACITY * together["rate"]
        over = load.phase(f"{TIMES_CAPACITY} times the capacity", seconds, rate=rate)
        last = load.phase("one client again", seconds / 6, clients=1)
        ready = httpx.get(f"{service.url}/health/ready").status_code == 200
    bound = min(limits["queue_tiles"] / together["rate"], limits["request_timeout_s"])
    growth = max(crowd["memory_after"], over["memory_after"]) - alone["memory_after"]
    return {
        "queue_tiles": limits["queue_tiles"],
        "request_timeout_s": limits["request_timeout_s"],
        "capacity": together["rate"],
        "queue_bound_s": bound,
        "allowed_p99": 2 * alone["p99"] + bound,
        "memory_at_start": at_start,
        "memory_growth": growth,
        "phases": load.phases,
        "answers_kept": all(set(p["answers"]) <= ALLOWED and p["wrong"] == 0 for p in load.phases),
        "latency_kept": over["p99"] <= 2 * alone["p99"] + bound,
        "memory_kept": growth <= MOST_GROWTH,
        "well_afterwards": ready and set(last["answers"]) == {"200"},
    }


def main() -> None:
    """Load a service per queue, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="a TIFF stack of sections of at least 512 x 512")
    parser.add_argument("--seconds", type=float, default=60, help="of the load")
    parser.add_argument("--queues", type=int, nargs="*", default=[16], help="queue_tiles, beside the default")
    parser.add_argument("--model", default="d4")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        prepare(folder, cut(given.data, SQUARES), given.model, given.device)
        runs = [loaded(folder, given.model, given.device, q, given.seconds) for q in [None, *given.queues]]
    publish("load", {"model": given.model, "device": given.device, "side": SIDE, "runs": runs})


if __name__ == "__main__":
    main()
