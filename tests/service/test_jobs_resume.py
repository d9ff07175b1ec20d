"""Jobs of a real server that is killed, stopped, or started twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tifffile

from emboundary.service import console
from emboundary.service.cli import create_cli

PROGRAM = [sys.executable, "-m", "emboundary.service"]
# Hundreds of blocks of one chunk each, every one flushed and recorded: seconds, wherever this runs.
ARRAY = np.random.default_rng(0).integers(0, 256, (2, 200, 200)).astype(np.uint8)
COUNT = 2 * 13 * 13
BODY: dict[str, Any] = {"input": "in.tif", "output": "out.zarr", "chunk": "1,16,16", "tile": 16}


class Server:
    """A server in a process of its own, and the folder that its jobs may use."""

    def __init__(self, folder: Path, repository: Path) -> None:
        self.folder = folder
        environment = os.environ | {
            "EMBOUNDARY_REPOSITORY": str(repository),
            "EMBOUNDARY_STATE_DIR": str(folder / "state"),
        }
        self.process = subprocess.Popen(
            [*PROGRAM, "serve", "--port", "0", "--device", "cpu", "--data-root", str(folder / "data")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )

    @property
    def url(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().split()[4]

    def wait_for_blocks(self, count: int) -> None:
        """Return when so many blocks of ``out.zarr`` are recorded as safe."""
        ledger = self.folder / "data" / ".out.zarr.partial" / "ledger.jsonl"
        until = time.monotonic() + 60
        while not ledger.exists() or ledger.read_bytes().count(b'"done"') < count:
            assert self.process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.005)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    tifffile.imwrite(tmp_path / "data" / "in.tif", ARRAY, photometric="minisblack")
    return tmp_path


@contextmanager
def serving(folder: Path, repository: Path) -> Iterator[Server]:
    server = Server(folder, repository)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.communicate()


def ended(url: str, identifier: str) -> dict[str, Any]:
    until = time.monotonic() + 120
    while (job := httpx.get(f"{url}/v1/jobs/{identifier}").json())["ended_at"] is None:
        assert time.monotonic() < until
        time.sleep(0.05)
    found: dict[str, Any] = job
    return found


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_bytes_of_predict(folder: Path, repository: Path) -> None:
    """The output is what ``emboundary predict`` makes of the same volume, in one go and under the same name."""
    job = files(folder / "data" / "out.zarr")
    (folder / "data" / "out.zarr").rename(folder / "by-job.zarr")
    words = ["predict", str(folder / "data" / "in.tif"), str(folder / "data" / "out.zarr")]
    words += ["--model", str(repository / "d4" / "1" / "model.onnx"), "--chunk", "1,16,16", "--tile", "16"]
    assert console.run(create_cli(), "emboundary", [*words, "--device", "cpu", "--progress", "none"]) == 0
    assert job == files(folder / "data" / "out.zarr")


def test_a_job_of_a_server_that_is_killed_ends_with_the_bytes_of_predict(folder: Path, repository: Path) -> None:
    with serving(folder, repository) as server:
        identifier = httpx.post(f"{server.url}/v1/jobs", json=BODY).json()["id"]
        server.wait_for_blocks(20)
        server.process.kill()
    with serving(folder, repository) as server:
        server.wait_for_blocks(60)
        server.process.kill()
    with serving(folder, repository) as server:
        job = ended(server.url, identifier)
    assert job["state"] == "succeeded", job["error"]
    assert job["runs"] == 3
    assert job["result"]["blocks_resumed"] >= 60
    assert job["result"]["blocks_done"] == COUNT - job["result"]["blocks_resumed"]
    assert_bytes_of_predict(folder, repository)


def test_a_job_of_a_server_that_is_told_to_stop_is_gone_on_with(folder: Path, repository: Path) -> None:
    with serving(folder, repository) as server:
        url = server.url
        identifier = httpx.post(f"{url}/v1/jobs", json=BODY).json()["id"]
        with httpx.stream("GET", f"{url}/v1/jobs/{identifier}/events", timeout=60) as followed:
            lines = followed.iter_lines()
            assert next(lines) == "event: progress"
            server.wait_for_blocks(20)
            server.process.send_signal(signal.SIGTERM)
            assert "event: end" not in list(lines)
        out, err = server.process.communicate(timeout=60)
        assert (server.process.returncode, out) == (0, "")
        assert {json.loads(line)["level"] for line in err.splitlines()} == {"info"}
    assert (folder / "data" / ".out.zarr.partial").exists()
    with serving(folder, repository) as server:
        job = ended(server.url, identifier)
    assert (job["state"], job["runs"]) == ("succeeded", 2)
    assert job["result"]["blocks_resumed"] >= 20
    assert_bytes_of_predict(folder, repository)


def test_two_servers_never_run_the_same_jobs(folder: Path, repository: Path) -> None:
    with serving(folder, repository) as server:
        url = server.url
        identifier = httpx.post(f"{url}/v1/jobs", json=BODY).json()["id"]
        with serving(folder, repository) as second:
            out, err = second.process.communicate(timeout=60)
        assert (second.process.returncode, out) == (1, "")
        assert err.count("\n") == 1
        assert "another server keeps its jobs in" in err
        assert "stop it, or give this one a --state-dir of its own" in err
        assert httpx.get(f"{url}/v1/jobs/{identifier}").json()["runs"] == 1
        assert httpx.get(f"{url}/v1/jobs/{identifier}").json()["state"] in ("running", "succeeded")
