"""Redirections of web servers that jobs read from: followed where jobs may read, refused elsewhere.

Without this a server below a URL prefix could send the service anywhere, the machine's own network included.  What
tensorstore opens needs no such care: it follows none.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from urllib.parse import urljoin

import aiohttp
from fsspec.config import conf

from emboundary.service.errors import InputError
from emboundary.service.security.jail import Jail


@contextmanager
def held_redirects(jail: Jail) -> Iterator[None]:
    """For the length of the block, hold what fsspec opens over HTTP in this process below the URL prefixes."""

    async def check(_: aiohttp.ClientSession, __: SimpleNamespace, found: aiohttp.TraceRequestRedirectParams) -> None:
        headers = found.response.headers
        target = urljoin(str(found.url), headers.get("Location") or headers.get("URI") or "")
        if not jail.reads(target):
            raise InputError(f"{found.url} redirects to a place that this service may not read; give its own URL")

    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(check)
    before = {name: conf.get(name) for name in ("http", "https")}
    for name, options in before.items():
        conf[name] = (options or {}) | {"client_kwargs": {"trace_configs": [trace]}}
    try:
        yield
    finally:
        for name, options in before.items():
            if options is None:
                del conf[name]
            else:
                conf[name] = options
