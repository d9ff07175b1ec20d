"""Why a request's tiles were not computed, as classes: each has its own answer over HTTP."""

from __future__ import annotations

from emboundary.service.errors import EmboundaryError


class OverloadedError(EmboundaryError):
    """There is no room, or no time, for a request now; there will be.

    Attributes:
        retry_after_s: when trying again is worth it, in whole seconds.
    """

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class TooLongError(EmboundaryError):
    """A request that no waiting makes small enough for the time or the room that one request has."""


class ExpiredError(EmboundaryError):
    """A request whose time ran out before its last tile was computed."""


class StoppedError(EmboundaryError):
    """The service stopped before the request was computed."""
