"""The jobs that are not over: those that wait, those that run, and the threads that run them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from emboundary.service.jobs.following import Interruption
from emboundary.service.jobs.record import Record
from emboundary.service.jobs.running import ended_unseen
from emboundary.service.jobs.schemas import Job
from emboundary.service.jobs.store import Entry, JobStore, StoreError

_log = logging.getLogger(__name__)
# Between two attempts to keep what has become of a job on a disk that refuses.
_SECONDS_BETWEEN_ATTEMPTS = 2.0

CarryOut = Callable[[Entry, Record, Interruption], dict[str, Any]]
"""Runs a job to its end, and returns the fields of its record that tell how it ended."""


class JobQueue:
    """Runs jobs in the order in which they were submitted; every method may be called from anywhere.

    Args:
        store: where they are kept; it is this queue's until ``stop`` has returned.
        carry_out: runs one.
        changed: called with a job's id after every change.
    """

    def __init__(self, store: JobStore, carry_out: CarryOut, changed: Callable[[str], None]) -> None:
        self._store = store
        self._carry_out = carry_out
        self._changed = changed
        self._news = threading.Condition()  # also holds together what is read and then written
        self._running: dict[str, tuple[Record, Interruption]] = {}
        self._threads: list[threading.Thread] = []
        self._stopping = False

    def start(self, threads: int) -> None:
        """Queue again what a stop or a kill has interrupted, and begin to work on so many jobs at a time.

        Raises:
            StoreError: the disk refuses.
        """
        for entry in self._store.unfinished():
            self._requeue(entry)
        for number in range(threads):
            thread = threading.Thread(target=self._work, name=f"emboundary-job-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def request_stop(self) -> None:
        """Begin no more jobs, and interrupt those that run; returns at once."""
        with self._news:
            self._stopping = True
            running = list(self._running.values())
            self._news.notify_all()
        for _, interruption in running:
            interruption.want()

    def stop(self, timeout_s: float) -> None:
        """Return when jobs have stopped, or after so many seconds."""
        self.request_stop()
        until = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def add(self, entry: Entry, key: str | None) -> None:
        """Keep a new job, and wake a thread for it.

        Raises:
            StoreError: the disk refuses.
        """
        with self._news:
            self._store.add(entry, key)
            self._news.notify_all()

    def running(self, identifier: str) -> Job | None:
        """The record of a job that runs; it may be ahead of the store."""
        found = self._running.get(identifier)
        return None if found is None else found[0].job

    def cancel(self, identifier: str) -> Job | None:
        """End a job, and return it as it is then; None where it is over, or not known.

        Raises:
            StoreError: the disk refuses.
        """
        with self._news:
            if (running := self._running.get(identifier)) is not None:
                record, interruption = running
                job = record.job if record.job.cancel_requested else record.change(cancel_requested=True)
                interruption.want()
                return job
            entry = self._store.find(identifier)
            if entry is None or entry.job.over:
                return None
            return self._record(entry).change(cancel_requested=True, state="cancelled", ended_at=datetime.now(UTC))

    def _record(self, entry: Entry) -> Record:
        return Record(entry.job, self._store, self._changed)

    def _requeue(self, entry: Entry) -> None:
        if (ended := ended_unseen(entry)) is not None:
            self._record(entry).change(**ended)
        elif entry.job.cancel_requested:
            self._record(entry).change(state="cancelled", ended_at=datetime.now(UTC), result=None)
        elif entry.job.state == "running":
            self._record(entry).change(state="queued", result=None)

    def _work(self) -> None:
        while not self._stopping:
            try:
                claimed = self._claim()
            except StoreError as error:
                _log.error("%s", error)
                self._pause()
                continue
            if claimed is not None:
                self._run(*claimed)

    def _claim(self) -> tuple[Entry, Record, Interruption] | None:
        """The next job, marked as running; None where the server stops."""
        with self._news:
            while not self._stopping:
                entry = self._store.next_queued()
                if entry is None:
                    self._news.wait()
                    continue
                record, interruption = self._record(entry), Interruption()
                started = entry.job.started_at or datetime.now(UTC)
                record.change(state="running", started_at=started, runs=entry.job.runs + 1, warnings=())
                self._running[entry.job.id] = (record, interruption)
                return entry, record, interruption
        return None

    def _run(self, entry: Entry, record: Record, interruption: Interruption) -> None:
        identifier = record.job.id
        _log.info("job %s: running", identifier)
        ended = self._carry_out(entry, record, interruption)
        while True:
            try:
                with self._news:  # whoever cancels it finds it either running or over
                    record.change(**ended)
                    del self._running[identifier]
            except StoreError as error:
                _log.error("job %s is %s, which cannot be kept: %s", identifier, ended["state"], error)
                if self._stopping:
                    return  # the next server finds it out
                self._pause()
            else:
                _log.info("job %s: %s", identifier, record.job.state)
                return

    def _pause(self) -> None:
        with self._news:
            if not self._stopping:
                self._news.wait(_SECONDS_BETWEEN_ATTEMPTS)
