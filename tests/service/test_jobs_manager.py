from __future__ import annotations

import asyncio
import hashlib
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
import pytest
import tifffile
import zarr

from emboundary.service.app import close, create_state, warm_up
from emboundary.service.cli import create_cli
from emboundary.service.console import run
from emboundary.service.engine import OnnxEngine, find_model
from emboundary.service.errors import InputError, UsageError
from emboundary.service.jobs import queue as queue_module
from emboundary.service.jobs import running as running_module
from emboundary.service.jobs import submission as submission_module
from emboundary.service.jobs.manager import JobManager
from emboundary.service.jobs.schemas import Job, JobState, JobSubmission
from emboundary.service.jobs.store import JobStore, StoreError
from emboundary.service.refusal import RequestError
from emboundary.service.settings import Settings
from emboundary.service.volumes.place import Place

SHAPE = (3, 50, 61)
ARRAY = np.random.default_rng(0).integers(0, 256, SHAPE).astype(np.uint8)
# Blocks of one chunk each, so that there is something to resume.
BLOCKS: dict[str, Any] = {"chunk": "1,16,16", "tile": 16, "pyramid": False}
COUNT = 3 * 4 * 4


class Gate(Protocol):
    def close(self, after: int = 0) -> None: ...
    def open(self) -> None: ...
    def wait(self) -> None: ...


class Lab:
    """A folder with a volume, and a service without HTTP that runs jobs there."""

    def __init__(self, folder: Path, repository: Path, **changes: Any) -> None:
        self.data = folder / "data"
        self.data.mkdir(exist_ok=True)
        if not (self.data / "in.tif").exists():
            tifffile.imwrite(self.data / "in.tif", ARRAY, photometric="minisblack")
        self.settings = Settings(
            repository=repository,
            device="cpu",
            data_roots=(self.data,),
            state_dir=folder / "state",
            **{"tile": 24, **changes},
        )
        self.state = create_state(self.settings)
        assert self.state.jobs is not None
        self.jobs: JobManager = self.state.jobs

    def submit(self, output: str = "out.zarr", *, key: str | None = None, **fields: Any) -> Job:
        submission = JobSubmission(**{"input": "in.tif", "output": output, **BLOCKS, **fields})
        return self.jobs.submit(submission, client="lab", key=key)

    def until(self, identifier: str, *states: JobState) -> Job:
        """The job, once it is in one of these states."""
        until = time.monotonic() + 60
        while (job := self.jobs.get(identifier)).state not in states:
            assert not job.over, job.error
            assert time.monotonic() < until
            time.sleep(0.01)
        return job

    def ended(self, job: Job) -> Job:
        return self.until(job.id, "succeeded", "failed", "cancelled")

    def map(self, name: str = "out.zarr") -> dict[str, bytes]:
        """Every file of an output; its own name is taken out of its metadata."""
        folder = self.data / name
        files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        return {
            inside: data.replace(f'"name": "{Path(name).stem}"'.encode(), b"") if inside == "zarr.json" else data
            for inside, data in files.items()
        }


Open = Callable[..., Any]


@contextmanager
def opened(folder: Path, repository: Path, **changes: Any) -> Iterator[Lab]:
    lab = Lab(folder, repository, **changes)
    try:
        warm_up(lab.state)
        yield lab
    finally:
        lab.state.drain()
        close(lab.state)


@pytest.fixture
def lab(tmp_path: Path, repository: Path) -> Iterator[Lab]:
    with opened(tmp_path, repository) as lab:
        yield lab


def test_a_job_gives_the_map_of_predict_and_tells_how_it_was_made(lab: Lab, tmp_path: Path) -> None:
    job = lab.submit()
    assert (job.state, job.runs, job.progress, job.result) == ("queued", 0, None, None)
    done = lab.ended(job)
    assert done.state == "succeeded", done.error
    once = lab.data / "once.zarr"
    model = lab.settings.repository / "d4" / "1" / "model.onnx"
    options = ["--chunk", "1,16,16", "--tile", "16", "--no-pyramid", "--device", "cpu", "--progress", "none"]
    words = ["predict", str(lab.data / "in.tif"), str(once), "--model", str(model), *options]
    assert run(create_cli(), "emboundary", words) == 0
    assert lab.map() == lab.map("once.zarr")

    result, progress = done.result, done.progress
    assert result is not None
    assert progress is not None
    assert (result.voxels, result.blocks_done, result.blocks_resumed, result.complete) == (ARRAY.size, COUNT, 0, True)
    assert result.intensity == (pytest.approx(ARRAY.mean()), pytest.approx(ARRAY.std()))
    assert (progress.phase, progress.voxels_done, progress.blocks, progress.blocks_done) == (
        "predicting",
        ARRAY.size,
        COUNT,
        COUNT,
    )
    assert done.started_at is not None
    assert done.ended_at is not None
    assert done.created_at <= done.started_at <= done.ended_at
    assert (done.runs, done.error, done.client) == (1, None, "lab")
    assert any("does not say its voxel size" in line and "--" not in line for line in done.warnings)
    entry = find_model("d4", lab.settings.repository)
    assert done.model.sha256 == entry.description.sha256 == done.fingerprint["model_sha256"]
    assert str(tmp_path) not in done.model_dump_json()


def test_every_option_reaches_the_run(lab: Lab) -> None:
    mask = np.zeros(SHAPE, np.uint8)
    mask[0, :20] = 1
    tifffile.imwrite(lab.data / "mask.tif", mask, photometric="minisblack")
    done = lab.ended(
        lab.submit(
            tta=True,
            roi="0:2,0:50,0:61",
            dtype="float32",
            intensity="100,50",
            mask="mask.tif",
            fill=0.5,
            voxel_size="50,4,4",
            rescale=True,
            ome_zarr="0.4",
            pyramid=True,
            model="plain",
            version="1",
        )
    )
    assert done.state == "succeeded", done.error
    found = zarr.open_array(lab.data / "out.zarr" / "0", mode="r")
    assert (found.shape, found.dtype, found.metadata.zarr_format) == ((2, 50, 61), np.float32, 2)
    values = np.asarray(found[:])
    assert (values[1] == 0.5).all()
    assert (values[0, :20] != 0.5).any()
    attributes = dict(zarr.open_group(lab.data / "out.zarr", mode="r").attrs)["emboundary"]
    assert (attributes["tta"], attributes["model"], attributes["intensity"]) == (True, "plain", [100, 50])
    assert attributes["rescale"] == done.fingerprint["rescale"] == [pytest.approx(4 / 4.6)] * 2
    assert done.fingerprint["mask"]["where"] == "mask.tif"


def test_a_job_keeps_the_tile_that_was_set_when_it_was_submitted(tmp_path: Path, repository: Path, gate: Gate) -> None:
    with interrupted(tmp_path, repository, gate, tile=None) as job:
        assert job.request.tile == 24
    with opened(tmp_path, repository, tile=16) as lab:
        done = lab.ended(job)
    assert done.state == "succeeded", done.error
    assert done.result is not None
    assert done.result.blocks_resumed > 0


def test_a_job_that_cannot_be_interrupted_does_not_hold_up_a_stop(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it reads from does not answer; the next server goes on with it as after a kill."""
    begun, release = threading.Event(), threading.Event()

    def hang(*_: object, **__: object) -> None:
        begun.set()
        assert release.wait(60)
        raise InputError("it answers too late")

    with opened(tmp_path, repository) as lab:
        with monkeypatch.context() as patched:
            patched.setattr(running_module, "make_map", hang)
            job = lab.submit()
            assert begun.wait(60)
            lab.jobs.stop(timeout_s=0.1)
        with opened(tmp_path, repository) as second:
            done = second.ended(job)
        assert (done.state, done.runs) == ("succeeded", 2)
        release.set()


def test_a_volume_behind_a_url_is_mapped_and_no_other(tmp_path: Path, repository: Path, served: str) -> None:
    with opened(tmp_path, repository, url_prefixes=(f"{served}/data",)) as lab:
        zarr.create_array(lab.data / "in.zarr", data=ARRAY, chunks=(1, 50, 61))
        done = lab.ended(lab.submit(input=f"{served}/data/in.zarr"))
        assert done.state == "succeeded", done.error
        assert lab.ended(lab.submit("local.zarr", input="in.zarr")).state == "succeeded"
        found, local = (zarr.open_array(lab.data / name / "0", mode="r")[:] for name in ("out.zarr", "local.zarr"))
        assert np.array_equal(np.asarray(found), np.asarray(local))
        for url in (f"{served}/database/in.zarr", f"{served}/data/../in.zarr", "http://169.254.169.254/data"):
            with pytest.raises(InputError, match=r"input is "):
                lab.submit("two.zarr", input=url)


def test_jobs_run_one_after_another(lab: Lab, gate: Gate) -> None:
    gate.close(after=5)
    first, second = lab.submit("one.zarr"), lab.submit("two.zarr")
    gate.wait()
    assert lab.jobs.get(first.id).state == "running"
    assert lab.jobs.get(second.id).state == "queued"
    assert lab.jobs.counts() == {"queued": 1, "running": 1, "succeeded": 0, "failed": 0, "cancelled": 0}
    gate.open()
    one, two = lab.ended(first), lab.ended(second)
    assert (one.state, two.state) == ("succeeded", "succeeded")
    assert one.ended_at is not None
    assert two.started_at is not None
    assert one.ended_at <= two.started_at
    assert lab.map("one.zarr") == lab.map("two.zarr")


def test_as_many_run_at_a_time_as_is_set(tmp_path: Path, repository: Path, gate: Gate) -> None:
    with opened(tmp_path, repository, jobs_at_once=2) as lab:
        gate.close(after=5)
        jobs = [lab.submit(f"{name}.zarr") for name in "abc"]
        gate.wait()
        for job in jobs[:2]:
            lab.until(job.id, "running")
        assert lab.jobs.get(jobs[2].id).state == "queued"
        gate.open()
        assert [lab.ended(job).state for job in jobs] == ["succeeded"] * 3
        assert lab.map("a.zarr") == lab.map("b.zarr") == lab.map("c.zarr")


def test_a_job_that_waits_is_cancelled_at_once(lab: Lab, gate: Gate) -> None:
    gate.close(after=5)
    first, second = lab.submit("one.zarr"), lab.submit("two.zarr")
    gate.wait()
    cancelled = lab.jobs.cancel(second.id)
    assert (cancelled.state, cancelled.cancel_requested, cancelled.runs) == ("cancelled", True, 0)
    gate.open()
    assert lab.ended(first).state == "succeeded"
    assert lab.jobs.get(second.id).state == "cancelled"
    assert not (lab.data / "two.zarr").exists()
    with pytest.raises(RequestError, match=rf"job {second.id} is over \(cancelled\); there is nothing to cancel"):
        lab.jobs.cancel(second.id)


def test_a_job_that_runs_is_cancelled_and_what_it_stored_is_gone_on_with(lab: Lab, gate: Gate) -> None:
    gate.close(after=20)
    job = lab.submit()
    gate.wait()
    asked = lab.jobs.cancel(job.id)
    assert (asked.state, asked.cancel_requested) == ("running", True)
    assert lab.jobs.cancel(job.id).revision == asked.revision
    gate.open()
    cancelled = lab.ended(job)
    assert (cancelled.state, cancelled.result, cancelled.error) == ("cancelled", None, None)
    assert not (lab.data / "out.zarr").exists()

    again = lab.ended(lab.submit())
    assert again.state == "succeeded", again.error
    assert again.result is not None
    assert 10 <= again.result.blocks_resumed <= 20
    assert again.result.blocks_done == COUNT - again.result.blocks_resumed
    assert lab.ended(lab.submit("once.zarr")).state == "succeeded"
    assert lab.map() == lab.map("once.zarr")


def test_a_cancelled_job_leaves_the_device_to_others_at_once(lab: Lab, gate: Gate) -> None:
    gate.close(after=5)
    first = lab.submit("one.zarr")
    gate.wait()
    lab.jobs.cancel(first.id)
    # The network is still held: the job ends without it.
    assert lab.ended(first).state == "cancelled"
    gate.open()
    assert lab.ended(lab.submit("two.zarr")).state == "succeeded"


def test_a_stop_keeps_jobs_for_the_next_server(tmp_path: Path, repository: Path, gate: Gate) -> None:
    with opened(tmp_path, repository) as lab:
        gate.close(after=20)
        running, waiting = lab.submit(), lab.submit("two.zarr")
        gate.wait()
        threading.Timer(0.2, gate.open).start()
    with opened(tmp_path, repository) as lab:
        done, other = lab.ended(running), lab.ended(waiting)
        assert (done.state, other.state) == ("succeeded", "succeeded")
        assert done.result is not None
        assert (done.runs, other.runs) == (2, 1)
        assert done.result.blocks_resumed >= 10
        assert lab.map() == lab.map("two.zarr")
        with pytest.raises(RequestError, match="is over"):
            lab.jobs.cancel(running.id)


def test_a_stopped_manager_accepts_nothing_and_still_answers(lab: Lab) -> None:
    done = lab.ended(lab.submit())
    lab.jobs.request_stop()
    with pytest.raises(RequestError, match="accepts no jobs now; try again after") as refused:
        lab.submit("two.zarr")
    assert (refused.value.status, refused.value.headers) == (503, {"Retry-After": "5"})
    assert lab.jobs.get(done.id) == done
    assert lab.jobs.page().jobs == (done,)


def test_one_server_at_a_time_has_the_jobs(lab: Lab, tmp_path: Path, repository: Path) -> None:
    second = Lab(tmp_path, repository)
    with pytest.raises(StoreError, match=r"another server keeps its jobs in .*; stop it, or give this one"):
        second.jobs.start()
    close(second.state)
    assert lab.ended(lab.submit()).state == "succeeded"


@contextmanager
def interrupted(tmp_path: Path, repository: Path, gate: Gate, **fields: Any) -> Iterator[Job]:
    """A job that a server has begun before it stopped; inside, no server runs."""
    with opened(tmp_path, repository) as lab:
        gate.close(after=20)
        job = lab.submit(**fields)
        gate.wait()
        threading.Timer(0.2, gate.open).start()
    yield job


@pytest.fixture
def own_repository(repository: Path, tmp_path: Path) -> Path:
    return shutil.copytree(repository, tmp_path / "repository")


def test_another_file_never_takes_the_place_of_a_jobs_model(tmp_path: Path, own_repository: Path, gate: Gate) -> None:
    with interrupted(tmp_path, own_repository, gate) as job:
        path = own_repository / "d4" / "1" / "model.onnx"
        model = onnx.load(path)
        model.producer_name = "somebody else"
        before, content = path.read_bytes(), model.SerializeToString()
        path.write_bytes(content)
        card = path.with_name("description.json")
        sums = (hashlib.sha256(data).hexdigest() for data in (before, content))
        card.write_text(card.read_text().replace(*sums))
    with opened(tmp_path, own_repository) as lab:
        failed = lab.ended(job)
    assert failed.state == "failed"
    assert failed.error is not None
    assert f"had sha256 {job.model.sha256[:12]}... when the job was submitted, and has " in failed.error


def test_a_model_that_is_gone_fails_its_jobs(tmp_path: Path, own_repository: Path, gate: Gate) -> None:
    with interrupted(tmp_path, own_repository, gate, model="plain") as job:
        shutil.rmtree(own_repository / "plain")
    with opened(tmp_path, own_repository) as lab:
        failed = lab.ended(job)
    assert failed.state == "failed"
    assert failed.error is not None
    assert "model plain, version 1, was served when the job was submitted, and is not any more" in failed.error


def test_a_volume_that_changed_meanwhile_fails_its_job(tmp_path: Path, repository: Path, gate: Gate) -> None:
    with interrupted(tmp_path, repository, gate) as job:
        tifffile.imwrite(tmp_path / "data" / "in.tif", 255 - ARRAY, photometric="minisblack")
    with opened(tmp_path, repository) as lab:
        failed = lab.ended(job)
    assert failed.state == "failed"
    assert failed.error is not None
    assert "was begun by a run that differs: input was" in failed.error
    assert "give the same options to go on with it, or overwrite to start over" in failed.error
    assert str(tmp_path) not in failed.error


def test_a_root_that_is_closed_meanwhile_fails_its_job(tmp_path: Path, repository: Path, gate: Gate) -> None:
    with interrupted(tmp_path, repository, gate) as job:
        (tmp_path / "other").mkdir()
    with opened(tmp_path / "other", repository) as other:
        other_state = other.settings.state_dir
        assert other_state is not None
    shutil.copytree(tmp_path / "state", other_state, dirs_exist_ok=True)
    with opened(tmp_path / "other", repository) as other:
        failed = other.ended(job)
    assert failed.error is not None
    assert "it must lie inside a data root of this service" in failed.error


def rewrite(folder: Path, job: Job, **fields: Any) -> None:
    """Leave a record as a kill would."""
    store = JobStore(folder / "state")
    store.write(job.model_copy(update=fields))
    store.close()


def test_a_kill_after_the_output_had_its_name_is_no_failure(tmp_path: Path, repository: Path) -> None:
    with opened(tmp_path, repository) as lab:
        done = lab.ended(lab.submit())
        before = lab.map()
    rewrite(tmp_path, done, state="running", ended_at=None)
    with opened(tmp_path, repository) as lab:
        found = lab.jobs.get(done.id)
        assert (found.state, found.result, found.runs) == ("succeeded", done.result, 1)
        assert found.ended_at is not None
        assert lab.map() == before


def test_a_kill_before_the_hidden_folder_was_gone_is_no_failure(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched, opened(tmp_path, repository) as lab:
        patched.setattr(Place, "discard", Place.release)
        done = lab.ended(lab.submit())
        before = lab.map()
    assert (tmp_path / "data" / ".out.zarr.partial").exists()
    rewrite(tmp_path, done, state="running", ended_at=None)
    with opened(tmp_path, repository) as lab:
        found = lab.ended(done)
        assert (found.state, found.runs) == ("succeeded", 2)
        assert lab.map() == before
    assert not (tmp_path / "data" / ".out.zarr.partial").exists()


def test_an_output_of_somebody_else_is_not_taken_for_the_jobs(tmp_path: Path, repository: Path, gate: Gate) -> None:
    with interrupted(tmp_path, repository, gate) as job:
        (tmp_path / "data" / "out.zarr").write_text("mine")
    with opened(tmp_path, repository) as lab:
        failed = lab.ended(job)
    assert failed.error is not None
    assert "OUTPUT out.zarr exists; move it away" in failed.error
    assert (tmp_path / "data" / "out.zarr").read_text() == "mine"


def test_a_job_that_was_asked_to_stop_before_a_kill_does_not_run_again(tmp_path: Path, repository: Path) -> None:
    with opened(tmp_path, repository) as lab:
        done = lab.ended(lab.submit())
    shutil.rmtree(tmp_path / "data" / "out.zarr")
    rewrite(tmp_path, done, state="running", ended_at=None, cancel_requested=True)
    with opened(tmp_path, repository) as lab:
        found = lab.jobs.get(done.id)
        assert (found.state, found.result) == ("cancelled", None)


def test_blocks_that_cannot_be_read_fail_a_job_unless_they_are_filled(lab: Lab, tmp_path: Path) -> None:
    zarr.create_array(lab.data / "in.zarr", data=ARRAY, chunks=(1, 50, 61))
    chunk = lab.data / "in.zarr" / "c" / "1" / "0" / "0"
    whole = chunk.read_bytes()
    chunk.write_bytes(b"no zstd")
    fields = {"input": "in.zarr", "chunk": "1,50,61", "tile": 24, "intensity": "128,50"}
    failed = lab.ended(lab.submit(**fields))
    assert failed.state == "failed"
    assert failed.error is not None
    assert failed.error.startswith("1 blocks of out.zarr are missing because the input cannot be read there (block 1:2")
    assert failed.result is not None
    assert (failed.result.complete, failed.result.blocks_done, failed.result.blocks_missing) == (False, 2, 1)
    assert failed.result.missing[0].box == "1:2,0:50,0:61"
    assert str(tmp_path) not in failed.model_dump_json()

    filled = lab.ended(lab.submit("filled.zarr", **fields, fill_missing=0.2))
    assert filled.state == "succeeded", filled.error
    assert (np.asarray(zarr.open_array(lab.data / "filled.zarr" / "0", mode="r")[1]) == 51).all()

    chunk.write_bytes(whole)
    mended = lab.ended(lab.submit(**fields))
    assert mended.result is not None
    assert (mended.state, mended.result.blocks_done, mended.result.blocks_resumed) == ("succeeded", 1, 2)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ZeroDivisionError("at /secret/place"), "the job failed through a defect of the service; its log says more"),
        (MemoryError(), "the server ran out of memory; submit the job with a smaller tile"),
        (InputError("x; give --voxel-size and the same command"), "x; give voxel_size and the same job"),
    ],
)
def test_whatever_goes_wrong_ends_the_job_alone(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, error: Exception, line: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(running_module, "make_map", fail)
        failed = lab.ended(lab.submit())
    assert (failed.state, failed.error, failed.result) == ("failed", line, None)
    assert lab.ended(lab.submit()).state == "succeeded"


@pytest.mark.parametrize(
    ("fields", "error", "line"),
    [
        ({"input": "no.tif"}, InputError, r"no.tif does not exist"),
        ({"input": "../in.tif"}, InputError, r"names with .. or ~ are not followed"),
        ({"output": "/etc/out.zarr"}, UsageError, r"it must lie inside a data root"),
        ({"output": "out.jpg"}, UsageError, r"its name must end in one of .zarr"),
        ({"output": "in.tif"}, UsageError, r"is INPUT, or holds it"),
        ({"output": "out.png"}, UsageError, r"a PNG holds one section of uint8"),
        ({"mask": "https://host/mask.zarr"}, InputError, r"below one of the URLs that this service may read"),
        ({"roi": "0:4,0:50,0:61"}, UsageError, r"a ROI must lie inside the volume"),
        ({"intensity": "1"}, UsageError, r"two numbers MEAN,STD"),
        ({"chunk": "1,16"}, UsageError, r"it must be Z,Y,X in whole voxels"),
        ({"voxel_size": "x"}, UsageError, r"it must be Z,Y,X in nm"),
        ({"rescale": True}, UsageError, r"rescale needs the voxel size"),
        ({"axes": "zy"}, UsageError, r"axes"),
        ({"model": "nosuch"}, RequestError, r"model is 'nosuch'; served here are"),
        ({"version": "7"}, RequestError, r"7"),
        ({"tile": 25}, UsageError, r"tile is 25; this service has memory for tiles of 24"),
    ],
)
def test_what_can_be_refused_is_refused_at_submission(
    lab: Lab, fields: dict[str, Any], error: type[Exception], line: str
) -> None:
    with pytest.raises(error, match=line):
        lab.submit(**fields)
    assert lab.jobs.page().jobs == ()
    assert sorted(path.name for path in lab.data.iterdir()) == ["in.tif"]


def test_a_mask_of_another_shape_is_refused_at_submission(lab: Lab) -> None:
    tifffile.imwrite(lab.data / "mask.tif", ARRAY[:2], photometric="minisblack")
    with pytest.raises(UsageError, match="they must be equal"):
        lab.submit(mask="mask.tif")


def test_chunks_that_fill_the_memory_are_refused(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submission_module, "_BLOCK_BYTES", 256)
    assert lab.ended(lab.submit()).state == "succeeded"
    with pytest.raises(UsageError, match=r"blocks of shape \(z, y, x\) = \(1, 16, 16\), of 1024 bytes each; a service"):
        lab.submit("two.zarr", dtype="float32")


def test_an_output_that_is_taken_is_refused(lab: Lab, gate: Gate) -> None:
    gate.close(after=20)
    job = lab.submit()
    gate.wait()
    with pytest.raises(RequestError, match=rf"output is that of job {job.id}, which is running") as refused:
        lab.submit()
    assert refused.value.status == 409
    lab.jobs.cancel(job.id)
    lab.ended(job)
    gate.open()
    with pytest.raises(RequestError, match=r"was begun by a run that differs: .*tta was false, is true") as refused:
        lab.submit(tta=True)
    assert refused.value.status == 409
    assert lab.ended(lab.submit(tta=True, overwrite=True)).state == "succeeded"
    with pytest.raises(RequestError, match=r"exists; move it away, or give overwrite to replace it") as refused:
        lab.submit()
    assert refused.value.status == 409
    assert lab.ended(lab.submit(overwrite=True)).state == "succeeded"


def test_of_two_submissions_for_one_output_one_is_accepted(lab: Lab, gate: Gate) -> None:
    gate.close()
    answers: list[Job | RequestError] = []

    def submit() -> None:
        try:
            answers.append(lab.submit())
        except RequestError as error:
            answers.append(error)

    threads = [threading.Thread(target=submit) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gate.open()
    jobs = [answer for answer in answers if isinstance(answer, Job)]
    assert len(jobs) == 1
    assert lab.ended(jobs[0]).state == "succeeded"


def test_the_same_key_gives_the_same_job(lab: Lab) -> None:
    job = lab.submit(key="k")
    assert lab.submit(key="k").id == job.id
    done = lab.ended(job)
    assert lab.submit(key="k") == done
    with pytest.raises(RequestError, match=rf"Idempotency-Key 'k' has been used for job {job.id}") as refused:
        lab.submit("two.zarr", key="k")
    assert refused.value.status == 422
    assert len(lab.jobs.page().jobs) == 1


def test_the_same_key_from_several_threads_gives_one_job(lab: Lab) -> None:
    jobs: list[Job] = []
    threads = [threading.Thread(target=lambda: jobs.append(lab.submit(key="k"))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(jobs) == 6
    assert len({job.id for job in jobs}) == 1


def test_too_many_waiting_jobs_are_refused(lab: Lab, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submission_module, "_MOST_WAITING", 1)
    gate.close(after=5)
    lab.submit("one.zarr")
    gate.wait()
    lab.submit("two.zarr")
    with pytest.raises(RequestError, match="1 jobs wait, at most 1 may") as refused:
        lab.submit("three.zarr")
    assert (refused.value.status, refused.value.headers) == (429, {"Retry-After": "60"})


def test_a_disk_that_refuses_for_a_while_loses_no_job(
    lab: Lab, gate: Gate, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(queue_module, "_SECONDS_BETWEEN_ATTEMPTS", 0.01)
    gate.close(after=20)
    job = lab.submit()
    gate.wait()
    write, refused = JobStore.write, threading.Event()

    def full(self: JobStore, job: Job, *, durable: bool = True) -> None:
        if job.over:
            refused.set()
        if job.result is None or job.over:
            raise StoreError("the disk is full")
        write(self, job, durable=durable)

    with monkeypatch.context() as patched:
        patched.setattr(JobStore, "write", full)
        gate.open()
        assert refused.wait(60)
        assert lab.jobs.get(job.id).state == "running"
    assert lab.ended(job).state == "succeeded"
    assert "its progress is not kept: the disk is full" in caplog.text
    assert "is succeeded, which cannot be kept: the disk is full" in caplog.text


def test_a_job_whose_start_cannot_be_kept_waits(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(queue_module, "_SECONDS_BETWEEN_ATTEMPTS", 0.01)
    with monkeypatch.context() as patched:

        def full(*_: object, **__: object) -> None:
            raise StoreError("the disk is full")

        patched.setattr(JobStore, "write", full)
        job = lab.submit()
        until = time.monotonic() + 60
        while "the disk is full" not in caplog.text:
            assert time.monotonic() < until
            time.sleep(0.01)
        assert lab.jobs.get(job.id).state == "queued"
    assert lab.ended(job).state == "succeeded"


def collect(lab: Lab, identifier: str, after: int | None = None) -> list[Job]:
    async def all_of_it() -> list[Job]:
        return [job async for job in lab.jobs.watch(identifier, after)]

    return asyncio.run(all_of_it())


def test_who_watches_sees_every_state_and_the_end(lab: Lab, gate: Gate) -> None:
    gate.close(after=20)
    job = lab.submit()
    gate.wait()
    threading.Timer(0.3, gate.open).start()
    seen = collect(lab, job.id)
    revisions = [change.revision for change in seen]
    assert revisions == sorted(set(revisions))
    assert [change.over for change in seen] == [False] * (len(seen) - 1) + [True]
    assert len(seen) > 2
    assert collect(lab, job.id) == collect(lab, job.id, after=seen[-1].revision) == [seen[-1]]


def test_who_watches_is_told_nothing_twice_and_let_go_when_the_server_stops(lab: Lab, gate: Gate) -> None:
    gate.close(after=20)
    job = lab.submit()
    gate.wait()
    known = lab.jobs.get(job.id).revision
    threading.Timer(0.3, lab.jobs.request_stop).start()
    assert all(change.revision > known and not change.over for change in collect(lab, job.id, after=known))


def test_unknown_jobs_and_pages(lab: Lab) -> None:
    for call in (lab.jobs.get, lab.jobs.cancel):
        with pytest.raises(RequestError, match=r"job 'x' is not known here; GET /v1/jobs lists") as refused:
            call("x")
        assert refused.value.status == 404
    with pytest.raises(RequestError, match="before is 'x', which is no job"):
        lab.jobs.page(before="x")
    jobs = [lab.ended(lab.submit(f"{n}.zarr", roi="0:1,0:16,0:16")) for n in range(3)]
    page = lab.jobs.page(limit=2)
    assert page.jobs == (jobs[2], jobs[1])
    assert page.next == jobs[1].id
    last = lab.jobs.page(limit=2, before=page.next)
    assert (last.jobs, last.next) == ((jobs[0],), None)
    assert lab.jobs.page(("failed",)).jobs == ()


def test_without_jobs_nothing_is_kept(repository: Path) -> None:
    state = create_state(Settings(repository=repository, device="cpu"))
    assert state.jobs is None
    close(state)


def test_a_failing_device_fails_the_job_in_one_line(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def run(self, *_: object) -> None:
            raise RuntimeError("no kernel")

    job = lab.submit()
    lab.ended(job)
    engine = lab.state.models.default.engine()
    assert isinstance(engine, OnnxEngine)
    monkeypatch.setattr(engine._runner, "_session", Broken())
    failed = lab.ended(lab.submit("two.zarr"))
    assert failed.state == "failed"
    assert failed.error is not None
    assert "cpu failed on images of shape" in failed.error
    assert "\n" not in failed.error
