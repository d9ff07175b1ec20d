"""The memory that all requests together may hold: what does not fit is refused, before it is received or made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from emboundary.service.refusal import RequestError


class Memory:
    """Bytes in use by requests; used from the event loop alone.

    Attributes:
        limit: in bytes.
        used: in bytes.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0

    @contextmanager
    def share(self) -> Iterator[Share]:
        """One request's share, given back at the end."""
        share = Share(self)
        try:
            yield share
        finally:
            self.used -= share.taken


class Share:
    """What one request holds.

    Attributes:
        taken: in bytes.
    """

    def __init__(self, memory: Memory) -> None:
        self.taken = 0
        self._memory = memory

    def refuse_unfit(self, nbytes: int) -> None:
        """Refuse a request that would not fit now.

        Raises:
            RequestError: 429; or 413 where it would not fit into an empty service either.
        """
        used, limit = self._memory.used, self._memory.limit
        if self.taken + nbytes > limit:
            raise RequestError(
                413,
                f"this request needs {self.taken + nbytes} bytes of memory, all requests together have {limit}: send "
                "it in smaller pieces, or submit the volume as a job (POST /v1/jobs)",
                reason="too_long",
            )
        if used + nbytes > limit:
            raise RequestError(
                429,
                f"requests hold {used} bytes of memory, this one needs {nbytes} more, and at most {limit} are used; "
                "try again after the seconds that Retry-After names",
                headers={"Retry-After": "1"},
                reason="memory_full",
            )

    def take(self, nbytes: int) -> None:
        """Take memory.

        Raises:
            RequestError: 429 or 413, as above.
        """
        self.refuse_unfit(nbytes)
        self._memory.used += nbytes
        self.taken += nbytes
