"""A request that is refused: with the status, the words and the headers of its answer."""

from __future__ import annotations

from collections.abc import Mapping

from emboundary.service.errors import EmboundaryError


class RequestError(EmboundaryError):
    """A request that is refused with a status of its own.

    Attributes:
        status: HTTP status, 4xx or 503.
        headers: further headers of the answer, for example ``Retry-After``.
        reason: one word under which such refusals are counted.
    """

    def __init__(
        self, status: int, detail: str, *, headers: Mapping[str, str] | None = None, reason: str = "request"
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.headers = dict(headers or {})
        self.reason = reason
