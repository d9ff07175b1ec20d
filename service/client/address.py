"""Where the service is and who asks: what every connection to it begins with."""

from __future__ import annotations

import os
from dataclasses import dataclass

import httpx

from emboundary.service.errors import RemoteError

KEY_VARIABLE = "EMBOUNDARY_API_KEY"
_EXAMPLE = "give it as http://HOST:PORT, e.g. http://127.0.0.1:8000"
_SECONDS_TO_CONNECT = 10.0


@dataclass(frozen=True)
class Address:
    """A service's URL, the headers that every request carries, and how long to wait for it.

    Attributes:
        url: scheme, host, port, and the path below which a proxy serves it.
        headers: with the API key, where there is one.
        timeout: longest silence while an answer is awaited, and while a connection is made.
    """

    url: httpx.URL
    headers: dict[str, str]
    timeout: httpx.Timeout

    @classmethod
    def of(cls, url: str, api_key: str | None, timeout_s: float) -> Address:
        """Check a URL; without a key the one in ``EMBOUNDARY_API_KEY`` is used, if there is one.

        Raises:
            RemoteError: a URL that is none, or one that holds a password.
        """
        try:
            parsed = httpx.URL(url)
        except (httpx.InvalidURL, ValueError) as error:
            raise RemoteError(f"url is {url!r}, which is none ({error}); {_EXAMPLE}") from error
        if parsed.userinfo:
            raise RemoteError(
                f"url names a user before {parsed.host}; the service knows keys alone: give one as api_key, or in the "
                f"environment as {KEY_VARIABLE}"
            )
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise RemoteError(f"url is {url!r}; it must name scheme and host: {_EXAMPLE}")
        key = os.environ.get(KEY_VARIABLE) if api_key is None else api_key
        if key and not (key.isascii() and key.isprintable()):
            raise RemoteError("api_key holds characters that no key has; give it as `emboundary keys new` printed it")
        headers = {"Authorization": f"Bearer {key.strip()}"} if key else {}
        return cls(parsed, headers, httpx.Timeout(timeout_s, connect=_SECONDS_TO_CONNECT))
