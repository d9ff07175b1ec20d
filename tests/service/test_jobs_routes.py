from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import httpx
import numpy as np
import pytest
import tifffile
from fastapi import FastAPI
from pydantic import SecretStr

from emboundary.service.app import create_app
from emboundary.service.errors import InputError
from emboundary.service.jobs.schemas import Job, JobList, JobSubmission
from emboundary.service.settings import Settings

ARRAY = np.random.default_rng(0).integers(0, 256, (3, 50, 61)).astype(np.uint8)
BODY: dict[str, Any] = {"input": "in.tif", "output": "out.zarr", "chunk": "1,16,16", "tile": 16, "pyramid": False}
Running = Callable[[FastAPI], AbstractContextManager[str]]


class Gate(Protocol):
    def close(self, after: int = 0) -> None: ...
    def open(self) -> None: ...
    def wait(self) -> None: ...


@pytest.fixture
def settings_with_jobs(tmp_path: Path, repository: Path) -> Settings:
    data = tmp_path / "data"
    data.mkdir()
    tifffile.imwrite(data / "in.tif", ARRAY, photometric="minisblack")
    return Settings(
        repository=repository, device="cpu", tile=24, data_roots=(data,), state_dir=tmp_path / "state", drain_s=5
    )


@pytest.fixture
def client(settings_with_jobs: Settings, running: Running) -> Iterator[httpx.Client]:
    with running(create_app(settings_with_jobs)) as url, httpx.Client(base_url=url, timeout=60) as client:
        yield client


def ended(client: httpx.Client, identifier: str) -> Job:
    until = time.monotonic() + 60
    while not (job := Job.model_validate_json(client.get(f"/v1/jobs/{identifier}").content)).over:
        assert time.monotonic() < until
        time.sleep(0.02)
    return job


def events(lines: Iterator[str]) -> Iterator[dict[str, str]]:
    """Server-sent events, as the standard says to read them; comments are left out."""
    event: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        if not line:
            if event:
                yield event
            event = {}
        elif name:
            event[name] = value.removeprefix(" ")


def test_a_submission_is_accepted_and_has_an_address(client: httpx.Client) -> None:
    answer = client.post("/v1/jobs", json=BODY)
    job = Job.model_validate_json(answer.content)
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/v1/jobs/{job.id}"
    assert job.request == JobSubmission(**BODY)
    assert (job.state, job.client) == ("queued", "127.0.0.1")
    done = ended(client, job.id)
    assert done.state == "succeeded", done.error
    page = JobList.model_validate_json(client.get("/v1/jobs").content)
    assert page == JobList(jobs=(done,), next=None)
    assert 'emboundary_jobs{state="succeeded"} 1.0' in client.get("/metrics").text


def test_events_follow_a_job_to_its_end(client: httpx.Client, gate: Gate) -> None:
    gate.close(after=20)
    identifier = client.post("/v1/jobs", json=BODY).json()["id"]
    gate.wait()
    with client.stream("GET", f"/v1/jobs/{identifier}/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        seen = []
        for event in events(answer.iter_lines()):
            seen.append(event)
            gate.open()
    jobs = [Job.model_validate_json(event["data"]) for event in seen]
    assert [event["id"] for event in seen] == [str(job.revision) for job in jobs]
    assert [event["event"] for event in seen] == ["progress"] * (len(seen) - 1) + ["end"]
    assert jobs[0].state == "running"
    assert jobs[0].progress is not None
    assert jobs[0].progress.phase == "predicting"
    assert jobs[-1].state == "succeeded"
    assert {event["retry"] for event in seen} == {"2000"}


def test_who_reconnects_is_sent_what_is_newer(client: httpx.Client, gate: Gate) -> None:
    gate.close(after=20)
    identifier = client.post("/v1/jobs", json=BODY).json()["id"]
    gate.wait()
    time.sleep(0.6)  # until the last note of progress has been made, the next comes when the gate opens
    known = client.get(f"/v1/jobs/{identifier}").json()["revision"]
    threading.Timer(0.3, gate.open).start()
    with client.stream("GET", f"/v1/jobs/{identifier}/events", headers={"Last-Event-ID": str(known)}) as answer:
        newer = [int(event["id"]) for event in events(answer.iter_lines())]
    assert newer
    assert min(newer) > known
    for last in (str(newer[-1]), "7", "nonsense"):
        with client.stream("GET", f"/v1/jobs/{identifier}/events", headers={"Last-Event-ID": last}) as answer:
            assert [(event["event"], int(event["id"])) for event in events(answer.iter_lines())] == [("end", newer[-1])]


def test_an_idle_stream_is_kept_alive(client: httpx.Client, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastapi.routing._PING_INTERVAL", 0.05)
    gate.close(after=20)
    identifier = client.post("/v1/jobs", json=BODY).json()["id"]
    gate.wait()
    with client.stream("GET", f"/v1/jobs/{identifier}/events") as answer:
        assert any(line.startswith(":") for line in answer.iter_lines())
    gate.open()


def test_cancelling(client: httpx.Client, gate: Gate) -> None:
    gate.close(after=20)
    first = client.post("/v1/jobs", json=BODY).json()["id"]
    second = client.post("/v1/jobs", json=BODY | {"output": "two.zarr"}).json()["id"]
    gate.wait()
    waiting, running = client.delete(f"/v1/jobs/{second}"), client.delete(f"/v1/jobs/{first}")
    assert (waiting.status_code, waiting.json()["state"]) == (200, "cancelled")
    assert (running.status_code, running.json()["cancel_requested"]) == (202, True)
    assert ended(client, first).state == "cancelled"
    again = client.delete(f"/v1/jobs/{first}")
    assert again.status_code == 409
    assert again.json()["detail"] == f"job {first} is over (cancelled); there is nothing to cancel"


def test_pages_are_filtered_by_state(client: httpx.Client) -> None:
    jobs = [client.post("/v1/jobs", json=BODY | {"output": f"{n}.tif", "roi": "0:1,0:16,0:16"}) for n in range(3)]
    identifiers = [job.json()["id"] for job in jobs]
    for identifier in identifiers:
        assert ended(client, identifier).state == "succeeded"

    def page(**query: Any) -> tuple[list[str], str | None]:
        found = JobList.model_validate_json(client.get("/v1/jobs", params=query).content)
        return [job.id for job in found.jobs], found.next

    assert page(limit=2) == (identifiers[:0:-1], identifiers[1])
    assert page(limit=2, before=identifiers[1]) == ([identifiers[0]], None)
    assert page(state="failed") == ([], None)
    assert page(state=["failed", "succeeded"])[0] == identifiers[::-1]


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        (BODY | {"input": "no.tif"}, 422, "no.tif does not exist; check the path"),
        (BODY | {"input": "../in.tif"}, 422, "input is '../in.tif'; names with .. or ~ are not followed"),
        (BODY | {"output": "/etc/x.zarr"}, 422, "output is '/etc/x.zarr'; it must lie inside a data root"),
        (BODY | {"output": "no/x.zarr"}, 422, "folder no of OUTPUT no/x.zarr does not exist; create it first"),
        (BODY | {"roi": "0:9,0:50,0:61"}, 422, "a ROI must lie inside the volume"),
        (BODY | {"model": "nosuch"}, 404, "model is 'nosuch'; served here are d4, plain"),
        (BODY | {"tile": "16"}, 422, "body parameter tile is '16': Input should be a valid integer"),
        (BODY | {"tile": 0}, 422, "body parameter tile is 0: Input should be greater than or equal to 1"),
        (BODY | {"fill": 2}, 422, "body parameter fill is 2: Input should be less than or equal to 1"),
        (BODY | {"tiles": 16}, 422, "body parameter 'tiles' is unknown; leave it out"),
        ({"input": "in.tif"}, 422, "body parameter output"),
        ([], 422, "Input should be an object"),
    ],
)
def test_bad_submissions_are_told_what_is_wrong(client: httpx.Client, body: Any, status: int, detail: str) -> None:
    answer = client.post("/v1/jobs", json=body)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert detail in answer.json()["detail"]
    assert client.get("/v1/jobs").json()["jobs"] == []


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"{", {"Content-Type": "application/json"}, 422),
        (b'{"input": "\xff"}', {"Content-Type": "application/json"}, 422),
        (json.dumps(BODY | {"fill": float("nan")}).encode(), {"Content-Type": "application/json"}, 422),
        (json.dumps(BODY).encode(), {"Content-Type": "text/plain"}, 415),
        (json.dumps(BODY).encode(), {}, 415),
        (b" " * 70_000 + json.dumps(BODY).encode(), {"Content-Type": "application/json"}, 413),
        (b"[" * 60_000, {"Content-Type": "application/json"}, 422),
    ],
)
def test_bodies_that_are_no_submission(
    client: httpx.Client, content: bytes, headers: dict[str, str], status: int
) -> None:
    answer = client.post("/v1/jobs", content=content, headers=headers)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


def test_an_output_that_stands_there_is_a_conflict(client: httpx.Client, settings_with_jobs: Settings) -> None:
    (settings_with_jobs.data_roots[0] / "out.zarr").mkdir()
    answer = client.post("/v1/jobs", json=BODY)
    assert answer.status_code == 409
    assert answer.json()["detail"].startswith("OUTPUT out.zarr exists; move it away, or give overwrite to replace it")


def test_overwrite_replaces_maps_and_nothing_else(client: httpx.Client, settings_with_jobs: Settings) -> None:
    (other := settings_with_jobs.data_roots[0] / "other.zarr").mkdir()
    (other / "raw").write_text("mine")
    answer = client.post("/v1/jobs", json=BODY | {"output": "other.zarr", "overwrite": True})
    assert answer.status_code == 409
    assert answer.json()["detail"] == (
        "overwrite is true, and what stands at output 'other.zarr' is no map of emboundary; nothing else is replaced: "
        "give another output"
    )
    assert (other / "raw").read_text() == "mine"
    for _ in range(2):  # the second time there is a map
        job = client.post("/v1/jobs", json=BODY | {"overwrite": True}).json()
        assert ended(client, job["id"]).state == "succeeded"


def test_the_same_key_gives_the_same_job(client: httpx.Client) -> None:
    headers = {"Idempotency-Key": "k"}
    first, again = (client.post("/v1/jobs", json=BODY, headers=headers) for _ in range(2))
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.headers["location"] == again.headers["location"]
    other = client.post("/v1/jobs", json=BODY | {"output": "two.zarr"}, headers=headers)
    assert other.status_code == 422
    assert "Idempotency-Key 'k' has been used" in other.json()["detail"]
    assert client.post("/v1/jobs", json=BODY, headers={"Idempotency-Key": "k" * 201}).status_code == 422
    ended(client, first.json()["id"])


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/jobs/nosuch", 404),
        ("DELETE", "/v1/jobs/nosuch", 404),
        ("GET", "/v1/jobs/nosuch/events", 404),
        ("GET", "/v1/jobs?before=nosuch", 422),
        ("GET", "/v1/jobs?state=lost", 422),
        ("GET", "/v1/jobs?limit=0", 422),
        ("GET", "/v1/jobs?page=2", 422),
        ("PUT", "/v1/jobs", 405),
    ],
)
def test_calls_that_name_nothing(client: httpx.Client, method: str, path: str, status: int) -> None:
    answer = client.request(method, path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


def test_only_holders_of_a_key_for_jobs_may_call(settings_with_jobs: Settings, running: Running) -> None:
    keys = {"emb_lab": "lab:jobs", "emb_web": "web:predict"}
    lines = ",".join(f"{scopes}:{hashlib.sha256(key.encode()).hexdigest()}" for key, scopes in keys.items())
    app = create_app(settings_with_jobs.model_copy(update={"api_keys": SecretStr(lines)}))
    with running(app) as url, httpx.Client(base_url=url, timeout=60) as client:
        for path in ("/v1/jobs", "/v1/jobs/x", "/v1/jobs/x/events"):
            assert client.get(path).status_code == 401
            assert client.get(path, headers={"X-API-Key": "emb_web"}).status_code == 403
        assert client.post("/v1/jobs", json=BODY).status_code == 401
        client.headers["X-API-Key"] = "emb_lab"
        job = client.post("/v1/jobs", json=BODY).json()
        assert job["client"] == "lab"
        assert ended(client, job["id"]).state == "succeeded"


def test_a_service_without_data_roots_runs_no_jobs(url: str) -> None:
    for answer in (httpx.post(f"{url}/v1/jobs", json=BODY), httpx.get(f"{url}/v1/jobs/x/events")):
        assert answer.status_code == 404
        assert answer.json()["detail"].startswith("this service runs no jobs: it was started without --data-root")


def test_a_follower_who_goes_away_is_forgotten(settings_with_jobs: Settings, running: Running, gate: Gate) -> None:
    app = create_app(settings_with_jobs)
    with running(app) as url:
        gate.close(after=20)
        identifier = httpx.post(f"{url}/v1/jobs", json=BODY).json()["id"]
        gate.wait()
        for _ in range(5):
            with httpx.stream("GET", f"{url}/v1/jobs/{identifier}/events") as answer:
                next(answer.iter_lines())
        until = time.monotonic() + 60
        while app.state.service.jobs.followers:
            assert time.monotonic() < until
            time.sleep(0.02)
        gate.open()


def test_slow_submissions_do_not_pile_up(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else waits for volumes that open slowly, and so many submissions wait at most."""
    release = threading.Event()

    def slow(*_: object) -> None:
        assert release.wait(60)
        raise InputError("it opens at last, and is no volume")

    monkeypatch.setattr("emboundary.service.jobs.manager.rehearse", slow)
    statuses: list[int] = []

    def submit(number: int) -> None:
        with httpx.Client(base_url=client.base_url, timeout=60) as own:
            statuses.append(own.post("/v1/jobs", json=BODY | {"output": f"{number}.zarr"}).status_code)

    threads = [threading.Thread(target=submit, args=(number,)) for number in range(24)]
    for thread in threads:
        thread.start()
    until = time.monotonic() + 60
    while len(statuses) < 24 - 4 - 16:
        assert time.monotonic() < until
        assert client.get("/health/live").status_code == 200
        time.sleep(0.02)
    assert set(statuses) == {429}
    release.set()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [422] * 20 + [429] * 4
