from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from emboundary.service.jobs.schemas import Job, JobModel, JobState, JobSubmission
from emboundary.service.jobs.store import Entry, JobStore, StoreError


def entry(identifier: str, state: JobState = "queued", client: str = "lab") -> Entry:
    job = Job(
        id=identifier,
        revision=1,
        state=state,
        client=client,
        request=JobSubmission(input="in.tif", output=f"{identifier}.zarr"),
        model=JobModel(name="d4", version="1", sha256="0" * 64),
        created_at=datetime.now(UTC),
        fingerprint={"roi": "0:1,0:1,0:1"},
    )
    return Entry(job, "/data/in.tif", Path(f"/data/{identifier}.zarr"), None)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    store = JobStore(tmp_path / "state")
    yield store
    store.close()


def test_what_was_added_is_there_after_reopening(store: JobStore, tmp_path: Path) -> None:
    added = entry("a")
    assert store.add(added, None) == added
    changed = added.job.model_copy(update={"state": "running", "revision": 2})
    store.write(changed)
    store.close()
    again = JobStore(tmp_path / "state")
    assert again.find("a") == Entry(changed, added.source, added.target, None)
    assert again.find("b") is None
    again.close()


def test_notes_are_there_after_reopening_too(store: JobStore, tmp_path: Path) -> None:
    store.add(entry("a"), None)
    store.write(entry("a").job.model_copy(update={"revision": 7}), durable=False)
    store.close()
    again = JobStore(tmp_path / "state")
    found = again.find("a")
    assert found is not None
    assert found.job.revision == 7
    again.close()


def test_the_queue_is_in_the_order_of_submission(store: JobStore) -> None:
    for identifier, state in (("c", "succeeded"), ("b", "running"), ("z", "queued"), ("a", "queued")):
        store.add(entry(identifier, state), None)  # type: ignore[arg-type]  # the four are states
    assert [found.job.id for found in store.unfinished()] == ["b", "z", "a"]
    following = store.next_queued()
    assert following is not None
    assert following.job.id == "z"
    assert store.counts() == {"succeeded": 1, "running": 1, "queued": 2}


def test_pages_are_newest_first_and_join(store: JobStore) -> None:
    names = [f"job{number}" for number in range(7)]
    for number, name in enumerate(names):
        store.add(entry(name, "failed" if number % 2 else "queued"), None)
    seen: list[str] = []
    before = None
    while page := store.page((), 3, before):
        seen += [job.id for job in page]
        before = page[-1].id
    assert seen == names[::-1]
    failed = store.page(("failed",), 10, "job5")
    assert failed is not None
    assert [job.id for job in failed] == ["job3", "job1"]
    assert store.page((), 3, "job9") is None


def test_a_key_of_a_client_names_one_job(store: JobStore) -> None:
    first = store.add(entry("a"), "k")
    assert store.add(entry("b"), "k") == first
    assert store.find("b") is None
    assert store.add(entry("c", client="other"), "k").job.id == "c"
    assert store.of_key("lab", "k") == first
    assert store.of_key("lab", "l") is None


def test_one_server_holds_a_folder(store: JobStore, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"another server keeps its jobs in .*state; stop it, or give this one"):
        JobStore(tmp_path / "state")
    store.close()
    JobStore(tmp_path / "state").close()


def test_nobody_else_may_read_it(store: JobStore, tmp_path: Path) -> None:
    store.add(entry("a"), None)
    files = [path for path in (tmp_path / "state").iterdir() if path.name.startswith("jobs")]
    assert {path.stat().st_mode & 0o077 for path in files} == {0}


def test_a_later_format_and_damage_are_refused(store: JobStore, tmp_path: Path) -> None:
    store.add(entry("a"), None)
    store.close()
    path = tmp_path / "state" / "jobs.sqlite"
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version = 9")
    database.close()
    with pytest.raises(StoreError, match="has format 9, this version knows 1"):
        JobStore(tmp_path / "state")
    path.write_bytes(b"no database at all" * 1000)
    with pytest.raises(StoreError, match="cannot be used: file is not a database; move it away to start without"):
        JobStore(tmp_path / "state")


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"jobs cannot be kept in .*: Not a directory; give a --state-dir that can be"):
        JobStore(tmp_path / "file" / "state")


def test_a_store_that_is_closed_says_so(store: JobStore) -> None:
    store.close()
    store.close()
    with pytest.raises(StoreError, match="the server is shutting down and keeps no account of jobs"):
        store.find("a")


def test_a_failed_write_changes_nothing(store: JobStore) -> None:
    store.add(entry("a"), None)
    with pytest.raises(StoreError, match=r"the jobs in .* cannot be read or written: UNIQUE constraint failed"):
        store.add(entry("a"), None)
    assert store.counts() == {"queued": 1}
    store.write(entry("a", "failed").job)
    assert store.counts() == {"failed": 1}


def test_a_damaged_record_is_told(store: JobStore, tmp_path: Path) -> None:
    store.add(entry("a"), None)
    database = sqlite3.connect(tmp_path / "state" / "jobs.sqlite")
    with database:
        database.execute("UPDATE jobs SET record = json_set(record, '$.revision', 'x')")
    database.close()
    with pytest.raises(StoreError, match="the record of a job is damaged: 1 validation error for Job"):
        store.find("a")
