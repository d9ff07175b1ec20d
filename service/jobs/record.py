"""One job's record while it runs: changed from several threads, and every change is counted, kept and told."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from emboundary.service.jobs.schemas import Job
from emboundary.service.jobs.store import JobStore, StoreError

_log = logging.getLogger(__name__)


class Record:
    """A job's record, in memory and in the store.

    Args:
        job: as it is in the store.
        store: where it is kept.
        changed: called with the job's id after every change.
    """

    def __init__(self, job: Job, store: JobStore, changed: Callable[[str], None]) -> None:
        self._job = job
        self._store = store
        self._changed = changed
        self._lock = threading.Lock()

    @property
    def job(self) -> Job:
        """The record as it is now."""
        return self._job

    def change(self, **fields: Any) -> Job:
        """Give fields new values; they are on the disk when this returns.

        Raises:
            StoreError: the disk refuses; nothing has changed then.
        """
        with self._lock:
            job = self._changed_job(fields)
            self._store.write(job)
            self._job = job
        self._changed(job.id)
        return job

    def note(self, **fields: Any) -> None:
        """Give fields new values that a run must not wait for, or fail because of: they may be lost."""
        with self._lock:
            job = self._job = self._changed_job(fields)
            try:
                self._store.write(job, durable=False)
            except StoreError as error:
                _log.warning("job %s: its progress is not kept: %s", job.id, error)
        self._changed(job.id)

    def _changed_job(self, fields: dict[str, Any]) -> Job:
        return self._job.model_copy(update={**fields, "revision": self._job.revision + 1})
