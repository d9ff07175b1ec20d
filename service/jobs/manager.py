"""Jobs: volumes that this server maps when no request needs the device, kept on disk until they are over."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Protocol, get_args

import platformdirs
from anyio import to_thread

from emboundary.service.batching.background import BackgroundEngine
from emboundary.service.batching.scheduler import Scheduler
from emboundary.service.engine import ModelEngine
from emboundary.service.hosting import Models
from emboundary.service.jobs.changes import Changes
from emboundary.service.jobs.following import Interruption
from emboundary.service.jobs.record import Record
from emboundary.service.jobs.running import BackgroundModel, carry_out, ended_unseen
from emboundary.service.jobs.schemas import Job, JobList, JobModel, JobState, JobSubmission
from emboundary.service.jobs.store import Entry, JobStore, StoreError
from emboundary.service.jobs.submission import Places, rehearse
from emboundary.service.problems import RequestError
from emboundary.service.security.jail import Jail
from emboundary.service.security.redaction import redact
from emboundary.service.settings import Settings

_log = logging.getLogger(__name__)
_MOST_WAITING = 1000
# Between two attempts to keep what has become of a job on a disk that refuses.
_SECONDS_BETWEEN_ATTEMPTS = 2.0


class JobCounter(Protocol):
    """Shows how many jobs there are; the metrics, in a service."""

    def watch_jobs(self, count: Callable[[], Mapping[str, int]]) -> None:
        """Ask a function for the number of jobs in each state, whenever that is wanted."""
        ...


class JobManager:
    """Accepts jobs, runs them in threads of its own, and tells how they are; every method may be called from anywhere.

    Args:
        settings: where jobs may read and write, where they are kept, and how many run at a time.
        models: what is served.
        scheduler: in front of the device.
        metrics: shown how many jobs there are.

    Raises:
        UsageError: URL prefixes that nobody may open.
    """

    def __init__(self, settings: Settings, models: Models, scheduler: Scheduler, metrics: JobCounter) -> None:
        self._settings = settings
        self._models = models
        self._scheduler = scheduler
        self._jail = Jail(settings.data_roots, settings.url_prefixes)
        self._changes = Changes()
        self._news = threading.Condition()  # also holds together what is read and then written
        self._running: dict[str, tuple[Record, Interruption]] = {}
        self._coming: set[Path | tuple[str, str]] = set()
        self._threads: list[threading.Thread] = []
        self._store: JobStore | None = None
        self._stopping = False
        metrics.watch_jobs(self.counts)

    def start(self) -> None:
        """Open what is kept, queue again what a stop or a kill has interrupted, and begin to work.

        A second call does nothing.

        Raises:
            StoreError: another server keeps its jobs in the same folder, or nothing can be kept there.
        """
        if self._store is not None:
            return
        store = self._store = JobStore(self._settings.state_dir or platformdirs.user_state_path("emboundary"))
        for entry in store.unfinished():
            self._requeue(store, entry)
        for number in range(self._settings.jobs_at_once):
            thread = threading.Thread(target=self._work, args=(store,), name=f"emboundary-job-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def request_stop(self) -> None:
        """Accept no more jobs, interrupt those that run, and end the streams of all followers; returns at once."""
        with self._news:
            self._stopping = True
            running = list(self._running.values())
            self._news.notify_all()
        for _, interruption in running:
            interruption.want()
        self._changes.tell_all()

    def stop(self, timeout_s: float = 20.0) -> None:
        """Stop jobs at a block, to be resumed by the next server that holds the folder; safe to repeat.

        A job that does not end in time, because what it reads from does not answer, is resumed as after a kill.
        """
        self.request_stop()
        until = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        if self._store is not None:
            self._store.close()

    def submit(self, submission: JobSubmission, *, client: str, key: str | None = None) -> Job:
        """Accept a job: everything that can be found wrong with it without computing is found now.

        Args:
            submission: what is asked for.
            client: who asks.
            key: under which the client can submit the same job again without getting a second one.

        Raises:
            RequestError: 404 no such model; 409 OUTPUT cannot stand there; 422 another job was submitted under the
                key; 429 too many jobs wait; 503 the server stops, or cannot keep jobs.
            UsageError: options that are malformed, or fit neither each other nor INPUT.
            InputError: INPUT or the mask lies outside, is missing, damaged, or no volume of grey values.
        """
        store = self._opened()
        with self._alone(None if key is None else (client, key)):
            if key is not None and (before := store.of_key(client, key)) is not None:
                return _the_same(before.job, submission, key)
            self._refuse_if_full(store)
            served = self._models.find(submission.model, submission.version)
            places = Places.of(self._jail, submission.input, submission.output, submission.mask)
            with self._alone(places.target):
                _refuse_taken(store, places.target)
                fingerprint = rehearse(submission, places, served.engine())
                description = served.description
                job = Job(
                    id=secrets.token_hex(8),
                    revision=1,
                    state="queued",
                    client=client,
                    request=submission,
                    model=JobModel(name=description.name, version=description.version, sha256=str(description.sha256)),
                    created_at=datetime.now(UTC),
                    fingerprint=fingerprint,
                )
                with self._news:
                    self._opened().add(Entry(job, places.source, places.target, places.mask), key)
                    self._news.notify_all()
        _log.info("job %s of %s: queued", job.id, client)
        return job

    def get(self, identifier: str) -> Job:
        """One job as it is now.

        Raises:
            RequestError: 404 for an id that is not known.
        """
        if (running := self._running.get(identifier)) is not None:
            return running[0].job
        return self._entry(identifier).job

    def page(self, states: tuple[JobState, ...] = (), *, limit: int = 100, before: str | None = None) -> JobList:
        """Jobs, the newest first.

        Args:
            states: only these; none: all.
            limit: so many at most.
            before: only jobs submitted before the one of this id.

        Raises:
            RequestError: 422 where ``before`` is no job.
        """
        found = self._opened(stopping=True).page(states, limit + 1, before)
        if found is None:
            raise RequestError(422, f"before is {before!r}, which is no job; give the `next` of the page before")
        jobs = tuple(found[:limit])
        return JobList(jobs=jobs, next=jobs[-1].id if len(found) > limit else None)

    def cancel(self, identifier: str) -> Job:
        """End a job: at once where it waits, at its next piece where it runs; what it has stored is kept.

        Raises:
            RequestError: 404 for an id that is not known, 409 for a job that is over.
        """
        with self._news:
            if (running := self._running.get(identifier)) is not None:
                record, interruption = running
                job = record.job if record.job.cancel_requested else record.change(cancel_requested=True)
                interruption.want()
                return job
            job = self._entry(identifier).job
            if job.over:
                raise RequestError(409, f"job {identifier} is over ({job.state}); there is nothing to cancel")
            record = Record(job, self._opened(stopping=True), self._changes.tell)
            return record.change(cancel_requested=True, state="cancelled", ended_at=datetime.now(UTC))

    async def watch(self, identifier: str, after: int | None = None) -> AsyncIterator[Job]:
        """A job whenever it has changed, until it is over or the server stops.

        Args:
            identifier: of a job that is known.
            after: the revision that the caller knows already; None: none.
        """
        with self._changes.of(identifier) as changed:
            while not self._stopping:
                changed.clear()
                try:
                    job = await to_thread.run_sync(self.get, identifier)
                except StoreError:
                    if self._stopping:
                        return
                    raise
                if job.over or job.revision != after:
                    yield job
                    after = job.revision
                if job.over:
                    return
                await changed.wait()

    @property
    def followers(self) -> int:
        """How many watch a job now."""
        return len(self._changes)

    def counts(self) -> dict[str, int]:
        """How many jobs there are in each state."""
        found: dict[str, int] = {}
        if self._store is not None:
            with suppress(StoreError):  # the server stops
                found = self._store.counts()
        return {state: found.get(state, 0) for state in get_args(JobState)}

    @contextmanager
    def _alone(self, what: Path | tuple[str, str] | None) -> Iterator[None]:
        """Inside, nobody else submits a job for that OUTPUT, or under that key of a client."""
        if what is None:
            yield
            return
        with self._news:
            while what in self._coming:
                self._news.wait()
            self._coming.add(what)
        try:
            yield
        finally:
            with self._news:
                self._coming.remove(what)
                self._news.notify_all()

    def _opened(self, *, stopping: bool = False) -> JobStore:
        """The store; ``stopping`` tells whether the caller may have it even then.

        Raises:
            RequestError: 503.
        """
        if self._store is None or (self._stopping and not stopping):
            raise RequestError(
                503,
                "the service is starting or shutting down, and accepts no jobs now; try again after the seconds that "
                "Retry-After names",
                headers={"Retry-After": "5"},
                reason="draining",
            )
        return self._store

    def _entry(self, identifier: str) -> Entry:
        entry = self._opened(stopping=True).find(identifier)
        if entry is None:
            raise RequestError(404, f"job {identifier!r} is not known here; GET /v1/jobs lists those that are")
        return entry

    def _refuse_if_full(self, store: JobStore) -> None:
        waiting = store.counts().get("queued", 0)
        if waiting >= _MOST_WAITING:
            raise RequestError(
                429,
                f"{waiting} jobs wait, at most {_MOST_WAITING} may; submit it again when some of them are over",
                headers={"Retry-After": "60"},
                reason="jobs",
            )

    def _requeue(self, store: JobStore, entry: Entry) -> None:
        record = Record(entry.job, store, self._changes.tell)
        if (ended := ended_unseen(entry)) is not None:
            record.change(**ended)
        elif entry.job.cancel_requested:
            record.change(state="cancelled", ended_at=datetime.now(UTC), result=None)
        elif entry.job.state == "running":
            record.change(state="queued", result=None)

    def _work(self, store: JobStore) -> None:
        while not self._stopping:
            try:
                claimed = self._claim(store)
            except StoreError as error:
                _log.error("%s", error)
                self._pause()
                continue
            if claimed is not None:
                self._run(*claimed)

    def _claim(self, store: JobStore) -> tuple[Entry, Record, Interruption] | None:
        """The next job, marked as running; None where the server stops."""
        with self._news:
            while not self._stopping:
                entry = store.next_queued()
                if entry is None:
                    self._news.wait()
                    continue
                record = Record(entry.job, store, self._changes.tell)
                started = entry.job.started_at or datetime.now(UTC)
                record.change(state="running", started_at=started, runs=entry.job.runs + 1, warnings=())
                interruption = Interruption()
                self._running[entry.job.id] = (record, interruption)
                return entry, record, interruption
        return None

    def _run(self, entry: Entry, record: Record, interruption: Interruption) -> None:
        identifier = record.job.id
        _log.info("job %s: running", identifier)
        ended = carry_out(
            entry,
            record,
            interruption,
            models=self._models,
            jail=self._jail,
            background=self._background,
            redact=partial(redact, settings=self._settings),
        )
        while True:
            try:
                with self._news:  # whoever cancels it finds it either running or over
                    record.change(**ended)
                    del self._running[identifier]
            except StoreError as error:
                _log.error("job %s has %s, which cannot be kept: %s", identifier, ended["state"], error)
                if self._stopping:
                    return  # the next server finds it out
                self._pause()
            else:
                _log.info("job %s: %s", identifier, record.job.state)
                return

    def _background(self, job: str, engine: ModelEngine) -> BackgroundModel:
        return BackgroundEngine(job, engine, self._scheduler)

    def _pause(self) -> None:
        with self._news:
            if not self._stopping:
                self._news.wait(_SECONDS_BETWEEN_ATTEMPTS)


def _the_same(job: Job, submission: JobSubmission, key: str) -> Job:
    if job.request != submission:
        raise RequestError(
            422,
            f"Idempotency-Key {key!r} has been used for job {job.id}, which asks for something else; give each job a "
            "key of its own",
        )
    return job


def _refuse_taken(store: JobStore, target: Path) -> None:
    for other in store.unfinished():
        if other.target == target:
            raise RequestError(
                409,
                f"output is that of job {other.job.id}, which is {other.job.state}; wait for it, cancel it, or give "
                "another output",
                reason="output",
            )
