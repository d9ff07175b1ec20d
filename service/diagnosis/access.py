"""Who may ask the service, and whether it can listen where it is told to."""

from __future__ import annotations

import errno
import json
import socket
from typing import TYPE_CHECKING
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from emboundary.service.errors import EmboundaryError
from emboundary.service.finding import Finding

if TYPE_CHECKING:
    from emboundary.service.settings import Settings

_PATIENCE_S = 2.0


def check_keys(settings: Settings) -> Finding:
    """Whether API keys can be read, and are there where others can reach the service."""
    from emboundary.service.security.exposure import is_loopback, refuse_open_to_others
    from emboundary.service.security.keys import Keys

    try:
        keys = Keys.of(settings)
        refuse_open_to_others(settings, guarded=bool(keys))
    except EmboundaryError as error:
        return Finding("API keys", "failed", str(error), "see the message")
    facts = {"guarded": bool(keys), "loopback": is_loopback(settings.host)}
    if keys:
        where = settings.api_keys_file or "the environment"
        return Finding("API keys", "ok", f"read from {where}", facts=facts)
    reach = "only this machine can reach the service" if facts["loopback"] else "no_auth is set: everybody may ask"
    return Finding("API keys", "ok", f"none; {reach} (host {settings.host})", facts=facts)


def check_port(host: str, port: int) -> Finding:
    """Whether the port is free; a service of ours that already runs there is fine."""
    facts = {"host": host, "port": port, "free": True}
    if port == 0:
        return Finding("port", "ok", "any free one", facts=facts)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
    except OSError as error:
        facts["free"] = False
        if error.errno == errno.EADDRINUSE and _is_ours(host, port):
            return Finding("port", "ok", f"{port} of {host}: emboundary serves there now", facts=facts)
        if error.errno == errno.EADDRINUSE:
            found = f"{port} of {host} is in use by another program"
            return Finding("port", "failed", found, "serve with another --port, or 0 for any free one", facts)
        found = f"{port} of {host} cannot be listened on: {error.strerror or error}"
        return Finding(
            "port", "failed", found, "serve on an address of this machine and a port that you may use", facts
        )
    return Finding("port", "ok", f"{port} of {host} is free", facts=facts)


def _is_ours(host: str, port: int) -> bool:
    """Whether what listens there answers as this service does."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    address = f"[{host}]" if ":" in host else host
    try:
        with build_opener(ProxyHandler({})).open(f"http://{address}:{port}/health/live", timeout=_PATIENCE_S) as answer:
            return bool(json.load(answer) == {"status": "live"})
    except (URLError, OSError, ValueError):
        return False
