"""Why a body was not read, as classes: each has its own answer over HTTP."""

from __future__ import annotations

from emboundary.service.errors import InputError


class MalformedBodyError(InputError):
    """Bytes that are not what their content type says: empty, truncated or damaged."""


class UnsupportedImageError(InputError):
    """A well-formed image that is no grey image or stack of sections, or holds values no network can take."""


class TooLargeError(InputError):
    """An image whose bytes, as sent or decompressed, exceed a limit."""


def refuse_large(nbytes: int, limit: int, what: str) -> None:
    """Refuse an image of ``nbytes`` bytes once decoded, before any of it is decoded.

    Raises:
        TooLargeError: more than ``limit`` bytes.
    """
    if nbytes > limit:
        raise TooLargeError(
            f"{what} holds {nbytes} bytes once decompressed; at most {limit} are accepted: send it in smaller pieces, "
            "as `emboundary client predict` does"
        )
