"""What a service does when it is told to stop, and when it is killed: ``python serving_stops.py``.

* SIGTERM with 6 requests in flight and one idle keep-alive connection: all 6 are answered right, the connection and new
  ones get no more work, and the process is gone within 30 s.
* ``kill -9`` while a job runs, at random moments, again and again until it ends: its output has the very bytes of
  ``emboundary predict``, which nothing stopped.
"""

from __future__ import annotations

import argparse
import io
import random
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import tifffile
import zarr
from measuring import publish, say
from numpy.typing import NDArray
from serving_process import PATIENCE_S, Service, serving

IN_FLIGHT = 6
GONE_WITHIN_S = 30
SAMPLE = Path(__file__).parents[2] / "service" / "sample" / "raw.ome.tif"
MEDIA = "application/x-npy"
BLOCKS = {"tile": 64, "chunk": "1,64,64", "pyramid": False}
KILLED_AFTER_S = (0.2, 3.0)  # from the moment at which the job runs
SEED = 20261


def sections(count: int) -> NDArray[np.uint8]:
    """Sections of the bundled sample, each another one."""
    stack: NDArray[np.uint8] = tifffile.imread(SAMPLE)
    return np.stack([np.roll(stack[n % len(stack)], 31 * n, axis=0) for n in range(count)])


def body_of(array: NDArray[Any]) -> bytes:
    """A .npy file."""
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def in_progress(service: Service) -> int:
    """Requests that have begun and are not answered, besides the one that asks."""
    figures = httpx.get(f"{service.url}/metrics").text.splitlines()
    (line,) = (line for line in figures if line.startswith("emboundary_requests_in_progress "))
    return int(float(line.split()[1])) - 1


def shutdown(sent: NDArray[np.uint8]) -> dict[str, Any]:
    """Stop a service that is at work."""
    with serving("--device", "cpu") as service, ThreadPoolExecutor(IN_FLIGHT) as pool:
        kept = HTTPConnection(service.host, timeout=PATIENCE_S)
        kept.request("GET", "/health/ready")
        kept.getresponse().read()

        def ask(section: NDArray[np.uint8]) -> httpx.Response:
            headers = {"Content-Type": MEDIA, "Accept": MEDIA}
            return httpx.post(
                f"{service.url}/v1/predict", content=body_of(section), headers=headers, timeout=PATIENCE_S
            )

        expected = [ask(section).content for section in sent]
        futures = [pool.submit(ask, section) for section in sent]
        until = time.monotonic() + PATIENCE_S
        while in_progress(service) < IN_FLIGHT and time.monotonic() < until:
            time.sleep(0.01)
        in_flight = sum(not future.done() for future in futures)
        began = time.monotonic()
        service.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        on_kept, on_new = _status(kept), _status(HTTPConnection(service.host, timeout=PATIENCE_S))
        answers = [future.result() for future in futures]
        answered_s = time.monotonic() - began
        code = service.process.wait(PATIENCE_S)
        gone_s = time.monotonic() - began
    right = sum(a.status_code == 200 and a.content == e for a, e in zip(answers, expected, strict=True))
    return {
        "in_flight": in_flight,
        "answered_right": right,
        "answers": [answer.status_code for answer in answers],
        "answered_s": answered_s,
        "gone_s": gone_s,
        "exit_code": code,
        "new_work_on_the_live_connection": on_kept,
        "new_connection": on_new,
        "kept": in_flight == right == IN_FLIGHT and gone_s <= GONE_WITHIN_S and code == 0 and on_kept != "200",
    }


def _status(connection: HTTPConnection) -> str:
    """What new work on a connection is answered."""
    try:
        connection.request("POST", "/v1/predict", body_of(np.eye(9)), {"Content-Type": MEDIA})
        return str(connection.getresponse().status)
    except OSError as error:
        return type(error).__name__


def killed(folder: Path, kills: int) -> dict[str, Any]:
    """Jobs whose server is killed, until so many kills have met one that runs."""
    chance = random.Random(SEED)
    source = folder / "raw.zarr"
    zarr.create_array(source, data=sections(6), chunks=(1, 128, 128), dimension_names=["z", "y", "x"])
    once = folder / "once.zarr"
    options = ["--tile", "64", "--chunk", "1,64,64", "--no-pyramid", "--device", "cpu", "--voxel-size", "50,4.6,4.6"]
    line = [sys.executable, "-m", "emboundary.service", "predict", str(source), str(once), *options]
    subprocess.run(line, check=True, capture_output=True)
    expected = _bytes(once)
    environment = {"EMBOUNDARY_STATE_DIR": str(folder / "state")}
    options = ["--device", "cpu", "--data-root", str(folder)]
    jobs, done, most_runs, same = 0, 0, 0, True
    while done < kills:
        output = f"map{jobs}.zarr"
        jobs += 1
        identifier = ""
        while True:
            with serving(*options, environment=environment) as service:
                if not identifier:
                    submitted = {"input": "raw.zarr", "output": output, "voxel_size": "50,4.6,4.6", **BLOCKS}
                    answer = httpx.post(f"{service.url}/v1/jobs", json=submitted).raise_for_status()
                    identifier = answer.json()["id"]
                finish = done >= kills
                job = _until(service, identifier, chance.uniform(*KILLED_AFTER_S) if not finish else PATIENCE_S)
                if job["state"] not in ("queued", "running"):
                    break
                service.process.kill()
                done += 1
                say(f"killed at block {job['progress'] and job['progress']['blocks_done']} of job {jobs}, {done} kills")
        if job["state"] != "succeeded":
            raise RuntimeError(f"job {identifier} ended {job['state']}: {job['error']}")
        most_runs = max(most_runs, job["runs"])
        same &= _bytes(folder / output) == expected
    return {
        "kills": done,
        "jobs": jobs,
        "blocks": job["progress"]["blocks"],
        "most_runs_of_a_job": most_runs,
        "same_bytes": same,
    }


def _until(service: Service, identifier: str, seconds: float) -> dict[str, Any]:
    """The job, once it is over or has run for so long."""
    began = None
    while True:
        job: dict[str, Any] = httpx.get(f"{service.url}/v1/jobs/{identifier}").raise_for_status().json()
        if job["state"] not in ("queued", "running"):
            return job
        if began is None and job["state"] == "running":
            began = time.monotonic()
        if began is not None and time.monotonic() - began > seconds:
            return job
        time.sleep(0.02)


def _bytes(folder: Path) -> dict[str, bytes]:
    """All files below a folder; a map's own name in its metadata is no part of what is compared."""
    name = f'"name": "{folder.stem}"'.encode()
    files = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    return {inside: content.replace(name, b"") for inside, content in files.items()}


def main() -> None:
    """Stop and kill, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="of the orderly shutdown")
    parser.add_argument("--kills", type=int, default=20)
    given = parser.parse_args()
    stops = []
    for _ in range(given.rounds):
        stops.append(shutdown(sections(IN_FLIGHT)))
        say(str(stops[-1]))
    with tempfile.TemporaryDirectory() as scratch:
        kills = killed(Path(scratch), given.kills)
    publish("serving_stops", {"shutdowns": stops, "within_s": GONE_WITHIN_S, "kill": kills})


if __name__ == "__main__":
    main()
