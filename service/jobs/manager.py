"""Jobs: volumes that this server maps when no request needs the device, kept on disk until they are over."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Protocol, get_args

import platformdirs
from anyio import to_thread

from emboundary.service.batching.background import BackgroundEngine
from emboundary.service.batching.scheduler import Scheduler
from emboundary.service.engine import ModelEngine
from emboundary.service.hosting import Models
from emboundary.service.jobs.changes import Changes
from emboundary.service.jobs.following import Interruption
from emboundary.service.jobs.queue import JobQueue
from emboundary.service.jobs.record import Record
from emboundary.service.jobs.running import BackgroundModel, carry_out
from emboundary.service.jobs.schemas import Job, JobList, JobModel, JobState, JobSubmission
from emboundary.service.jobs.store import Entry, JobStore, StoreError
from emboundary.service.jobs.submission import Places, refuse_another, refuse_if_full, refuse_taken, rehearse, with_tile
from emboundary.service.refusal import RequestError
from emboundary.service.security.jail import Jail
from emboundary.service.security.redaction import redact
from emboundary.service.settings import Settings

_log = logging.getLogger(__name__)


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
        self._submitting = threading.Condition()
        self._coming: set[Path | tuple[str, str]] = set()
        self._store: JobStore | None = None
        self._queue: JobQueue | None = None
        self._stopping = False
        metrics.watch_jobs(self.counts)

    def start(self) -> None:
        """Open what is kept, queue again what a stop or a kill has interrupted, and begin to work.

        A second call does nothing.

        Raises:
            StoreError: another server keeps its jobs in the same folder, or nothing can be kept there.
        """
        if self._store is None:
            self._store = JobStore(self._settings.state_dir or platformdirs.user_state_path("emboundary"))
            self._queue = JobQueue(self._store, self._carry_out, self._changes.tell)
            self._queue.start(self._settings.jobs_at_once)

    def request_stop(self) -> None:
        """Accept no more jobs, interrupt those that run, and end the streams of all followers; returns at once."""
        self._stopping = True
        if self._queue is not None:
            self._queue.request_stop()
        self._changes.tell_all()

    def stop(self, timeout_s: float = 20.0) -> None:
        """Stop jobs at a block, to be resumed by the next server that holds the folder; safe to repeat.

        A job that does not end in time, because what it reads from does not answer, is resumed as after a kill.
        """
        self.request_stop()
        if self._queue is not None:
            self._queue.stop(timeout_s)
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
        store, queue = self._accepting()
        submission = with_tile(submission, self._settings.tile)
        with self._alone(None if key is None else (client, key)):
            if key is not None and (before := store.of_key(client, key)) is not None:
                refuse_another(before.job, submission, key)
                return before.job
            refuse_if_full(store)
            served = self._models.find(submission.model, submission.version)
            places = Places.of(self._jail, submission.input, submission.output, submission.mask)
            with self._alone(places.target):
                refuse_taken(store, places.target)
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
                self._accepting()  # it may have taken long
                queue.add(Entry(job, places.source, places.target, places.mask), key)
        _log.info("job %s of %s: queued", job.id, client)
        return job

    def get(self, identifier: str) -> Job:
        """One job as it is now.

        Raises:
            RequestError: 404 for an id that is not known.
        """
        running = None if self._queue is None else self._queue.running(identifier)
        return self._kept(identifier) if running is None else running

    def page(self, states: tuple[JobState, ...] = (), *, limit: int = 100, before: str | None = None) -> JobList:
        """Jobs, the newest first.

        Args:
            states: only these; none: all.
            limit: so many at most.
            before: only jobs submitted before the one of this id.

        Raises:
            RequestError: 422 where ``before`` is no job.
        """
        found = self._opened().page(states, limit + 1, before)
        if found is None:
            raise RequestError(422, f"before is {before!r}, which is no job; give the `next` of the page before")
        jobs = tuple(found[:limit])
        return JobList(jobs=jobs, next=jobs[-1].id if len(found) > limit else None)

    def cancel(self, identifier: str) -> Job:
        """End a job: at once where it waits, at its next piece where it runs; what it has stored is kept.

        Raises:
            RequestError: 404 for an id that is not known, 409 for a job that is over.
        """
        self._opened()
        assert self._queue is not None  # it is opened with the store
        cancelled = self._queue.cancel(identifier)
        if cancelled is None:
            job = self._kept(identifier)
            raise RequestError(409, f"job {identifier} is over ({job.state}); there is nothing to cancel")
        return cancelled

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
        with self._submitting:
            while what in self._coming:
                self._submitting.wait()
            self._coming.add(what)
        try:
            yield
        finally:
            with self._submitting:
                self._coming.remove(what)
                self._submitting.notify_all()

    def _opened(self) -> JobStore:
        """The store, also while the service shuts down.

        Raises:
            RequestError: 503.
        """
        if self._store is None:
            raise _not_now()
        return self._store

    def _accepting(self) -> tuple[JobStore, JobQueue]:
        """The store and the queue.

        Raises:
            RequestError: 503.
        """
        if self._store is None or self._queue is None or self._stopping:
            raise _not_now()
        return self._store, self._queue

    def _kept(self, identifier: str) -> Job:
        entry = self._opened().find(identifier)
        if entry is None:
            raise RequestError(404, f"job {identifier!r} is not known here; GET /v1/jobs lists those that are")
        return entry.job

    def _carry_out(self, entry: Entry, record: Record, interruption: Interruption) -> dict[str, Any]:
        return carry_out(
            entry,
            record,
            interruption,
            models=self._models,
            jail=self._jail,
            background=self._background,
            redact=partial(redact, settings=self._settings),
        )

    def _background(self, job: str, engine: ModelEngine) -> BackgroundModel:
        return BackgroundEngine(job, engine, self._scheduler)


def _not_now() -> RequestError:
    return RequestError(
        503,
        "the service is starting or shutting down, and accepts no jobs now; try again after the seconds that "
        "Retry-After names",
        headers={"Retry-After": "5"},
        reason="draining",
    )
