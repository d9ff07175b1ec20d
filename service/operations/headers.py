"""What every answer carries, and whom a browser may ask on behalf of a page.

A page from anywhere can make a browser send requests to this service, and, by giving its own name this machine's
address (DNS rebinding), read the answers.  Keys stop both; where none are set, ``Host`` and ``Origin`` must be ours.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from emboundary.service import problems
from emboundary.service.refusal import RequestError

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class SecurityHeaders:
    """Sets on every answer what it has not set itself.

    Args:
        app: what answers.
        shared: whether pages of other origins may use answers.
    """

    def __init__(self, app: ASGIApp, *, shared: bool) -> None:
        self._app = app
        self._headers = _HEADERS | {"Cross-Origin-Resource-Policy": "cross-origin" if shared else "same-origin"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
            await send(message)

        return await self._app(scope, receive, sending)


class Callers:
    """Refuses requests for other hosts, and what changes something for pages of other origins.

    Args:
        app: what answers.
        hosts: values of ``Host``, without port, that are answered; empty: all.
        origins: whose pages may ask for everything; ``*`` for all.
        guarded: whether keys are needed, which no page of another origin has.
    """

    def __init__(self, app: ASGIApp, *, hosts: Iterable[str], origins: Iterable[str], guarded: bool) -> None:
        self._app = app
        self._hosts = frozenset(_name(host) for host in hosts)
        self._origins = frozenset(origin.lower() for origin in origins)
        self._guarded = guarded

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (refusal := self._refusal(scope)) is not None:
            response = await problems.answer(Request(scope), refusal)
            return await response(scope, receive, send)
        return await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> RequestError | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self._hosts and _name(host) not in self._hosts:
            return RequestError(
                421,
                f"Host is {host[:100]!r}, which is not served here; use the address that the service was started "
                "with, or have the operator add the name to allowed_hosts",
                reason="host",
            )
        origin = headers.get("origin")
        if origin is None or self._guarded or scope["method"] in _SAFE:
            return None
        if origin.lower() in self._origins or "*" in self._origins or _host_of(origin) == host.lower():
            return None
        return RequestError(
            403,
            f"Origin is {origin[:100]!r}; pages from there may change nothing here: have the operator add it to "
            "cors_origins, or set API keys",
            reason="origin",
        )


def _name(host: str) -> str:
    """``Host`` without its port, in lower case; an IPv6 address in brackets."""
    host = host.lower()
    if host.count(":") > 1 and not host.startswith("["):
        return f"[{host}]"
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]


def _host_of(origin: str) -> str:
    try:
        return urlsplit(origin.lower()).netloc
    except ValueError:
        return ""
