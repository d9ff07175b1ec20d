"""The jobs of one server on disk: an SQLite file in a folder that one server holds at a time.

state_dir/lock         held by the server
          jobs.sqlite  one row per job: the record as it is answered, and what is not told

A server that is killed leaves both; the next one goes on with the jobs that were not over.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from emboundary.service.errors import first_line
from emboundary.service.jobs.schemas import Job, JobState
from emboundary.service.refusal import RequestError

_FORMAT = 1
_TABLE = """
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    record TEXT NOT NULL,
    source TEXT NOT NULL,
    target TEXT NOT NULL,
    mask TEXT,
    idempotency_key TEXT,
    id TEXT NOT NULL GENERATED ALWAYS AS (json_extract(record, '$.id')) VIRTUAL,
    state TEXT NOT NULL GENERATED ALWAYS AS (json_extract(record, '$.state')) VIRTUAL,
    client TEXT NOT NULL GENERATED ALWAYS AS (json_extract(record, '$.client')) VIRTUAL
);
CREATE UNIQUE INDEX jobs_id ON jobs (id);
CREATE INDEX jobs_state ON jobs (state, number);
CREATE UNIQUE INDEX jobs_key ON jobs (client, idempotency_key);
"""
_COLUMNS = "record, source, target, mask"


class StoreError(RequestError):
    """A folder in which jobs cannot be kept; over HTTP, 503."""

    def __init__(self, detail: str) -> None:
        super().__init__(503, detail, reason="store")


@dataclass(frozen=True)
class Entry:
    """One job as it is kept.

    Attributes:
        job: the record as it is answered.
        source: INPUT as it was resolved when the job was submitted.
        target: OUTPUT, likewise.
        mask: likewise.
    """

    job: Job
    source: str
    target: Path
    mask: str | None


class JobStore:
    """The jobs in a folder; safe to use from several threads.

    Changes of state are on the disk before a call returns; notes of progress only survive the process, because
    waiting for the disk would hold up the run that they tell of.

    Raises:
        StoreError: another server holds the folder, it cannot be written to, or what is there is damaged or newer.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._held = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(
                f"jobs cannot be kept in {folder}: {error.strerror or error}; give a --state-dir that can be written to"
            ) from error
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._database = self._open()
        except BaseException as error:
            os.close(self._held)
            if isinstance(error, BlockingIOError):
                raise StoreError(
                    f"another server keeps its jobs in {folder}; stop it, or give this one a --state-dir of its own"
                ) from None
            raise

    def _open(self) -> sqlite3.Connection:
        path = self._folder / "jobs.sqlite"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)  # whose volumes are mapped is private
        os.close(descriptor)
        database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        try:
            database.execute("PRAGMA journal_mode = WAL")
            (found,) = database.execute("PRAGMA user_version").fetchone()
            if found > _FORMAT:
                raise StoreError(
                    f"{path} has format {found}, this version knows {_FORMAT}: go on with the version of emboundary "
                    "that wrote it, or give another --state-dir"
                )
            if found == 0:
                database.executescript(f"BEGIN; {_TABLE} PRAGMA user_version = {_FORMAT}; COMMIT;")
            damage = database.execute("PRAGMA quick_check(1)").fetchone()[0]
            if damage != "ok":
                raise sqlite3.DatabaseError(damage)
        except BaseException as error:
            database.close()
            if isinstance(error, sqlite3.Error):
                raise StoreError(
                    f"{path} cannot be used: {first_line(error)}; move it away to start without its jobs"
                ) from error
            raise
        return database

    def close(self) -> None:
        """Let another server have the folder; safe to repeat."""
        with self._lock:
            if self._held >= 0:
                self._database.close()
                os.close(self._held)
                self._held = -1

    def add(self, entry: Entry, key: str | None) -> Entry:
        """Keep a new job, and return it; where the client has used the key before, the job of that time.

        Raises:
            StoreError: the disk refuses.
        """
        with self._writing(durable=True):
            if key is not None and (before := self._of_key(entry.job.client, key)) is not None:
                return before
            self._database.execute(
                f"INSERT INTO jobs ({_COLUMNS}, idempotency_key) VALUES (?, ?, ?, ?, ?)",
                (entry.job.model_dump_json(), entry.source, str(entry.target), entry.mask, key),
            )
            return entry

    def of_key(self, client: str, key: str) -> Entry | None:
        """The job that a client submitted under a key; None where there is none."""
        with self._reading():
            return self._of_key(client, key)

    def find(self, identifier: str) -> Entry | None:
        """The job of an id; None where there is none."""
        with self._reading():
            return self._find(identifier)

    def write(self, job: Job, *, durable: bool = True) -> None:
        """Keep what has become of a job.

        Args:
            job: its record, whose id is known here.
            durable: whether this must survive the machine; otherwise it survives the process.

        Raises:
            StoreError: the disk refuses.
        """
        with self._writing(durable=durable):
            self._database.execute("UPDATE jobs SET record = ? WHERE id = ?", (job.model_dump_json(), job.id))

    def unfinished(self) -> list[Entry]:
        """The jobs that are queued or running, in the order in which they were submitted."""
        with self._reading():
            rows = self._database.execute(
                f"SELECT {_COLUMNS} FROM jobs WHERE state IN ('queued', 'running') ORDER BY number"
            )
            return [_entry(row) for row in rows]

    def next_queued(self) -> Entry | None:
        """The queued job that was submitted first."""
        with self._reading():
            row = self._database.execute(
                f"SELECT {_COLUMNS} FROM jobs WHERE state = 'queued' ORDER BY number LIMIT 1"
            ).fetchone()
            return None if row is None else _entry(row)

    def page(self, states: tuple[JobState, ...], limit: int, before: str | None) -> list[Job] | None:
        """Jobs, the newest first; None where ``before`` is no job.

        Args:
            states: only these; none: all.
            limit: so many at most.
            before: only jobs submitted before the one of this id.
        """
        wanted, values = ["1"], list[str | int]()
        with self._reading():
            if before is not None:
                row = self._database.execute("SELECT number FROM jobs WHERE id = ?", (before,)).fetchone()
                if row is None:
                    return None
                wanted.append("number < ?")
                values.append(row[0])
            if states:
                wanted.append(f"state IN ({', '.join('?' * len(states))})")
                values += states
            rows = self._database.execute(
                f"SELECT record FROM jobs WHERE {' AND '.join(wanted)} ORDER BY number DESC LIMIT ?", [*values, limit]
            )
            return [_job(record) for (record,) in rows]

    def counts(self) -> dict[str, int]:
        """How many jobs there are in each state that occurs."""
        with self._reading():
            return dict(self._database.execute("SELECT state, count(*) FROM jobs GROUP BY state").fetchall())

    def _find(self, identifier: str) -> Entry | None:
        row = self._database.execute(f"SELECT {_COLUMNS} FROM jobs WHERE id = ?", (identifier,)).fetchone()
        return None if row is None else _entry(row)

    def _of_key(self, client: str, key: str) -> Entry | None:
        row = self._database.execute(
            f"SELECT {_COLUMNS} FROM jobs WHERE client = ? AND idempotency_key = ?", (client, key)
        ).fetchone()
        return None if row is None else _entry(row)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with self._lock:
            if self._held < 0:
                raise StoreError("the server is shutting down and keeps no account of jobs any more; ask again later")
            try:
                yield
            except sqlite3.Error as error:
                raise StoreError(
                    f"the jobs in {self._folder} cannot be read or written: {first_line(error)}; check the disk"
                ) from error

    @contextmanager
    def _writing(self, *, durable: bool) -> Iterator[None]:
        with self._reading():
            self._database.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:  # a full disk has ended it already
                    self._database.execute("ROLLBACK")
                raise


def _entry(row: tuple[str, str, str, str | None]) -> Entry:
    record, source, target, mask = row
    return Entry(_job(record), source, Path(target), mask)


def _job(record: str) -> Job:
    try:
        return Job.model_validate_json(record)
    except ValidationError as error:
        raise StoreError(f"the record of a job is damaged: {first_line(error)}; {record[:100]!r}") from error
