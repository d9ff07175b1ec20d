"""A request's body, received within bounds of size and time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from fastapi import Request
from starlette.requests import ClientDisconnect

from emboundary.service.refusal import RequestError


async def receive(
    request: Request, limit: int, timeout_s: float, too_large: str, take: Callable[[int], None] = lambda _: None
) -> bytes:
    """The body; receiving stops as soon as it is too large or too slow.

    Args:
        request: whose body has not been read.
        limit: of its size, in bytes.
        timeout_s: within which it must have arrived, in seconds.
        too_large: what follows "the body has N bytes" in a refusal: the rule and the remedy.
        take: told the size of each part before it is kept; what it raises ends the request.

    Raises:
        RequestError: 413, 408, or 400 for one cut short.
    """
    promised = request.headers.get("content-length", "")
    if promised.isdecimal() and int(promised) > limit:
        raise _too_large(f"{promised} bytes", too_large)
    body = bytearray()
    try:
        async with asyncio.timeout(timeout_s):
            async for chunk in request.stream():
                if len(body) + len(chunk) > limit:
                    raise _too_large(f"more than {limit} bytes", too_large)
                take(len(chunk))
                body += chunk
    except TimeoutError:
        raise RequestError(
            408,
            f"{len(body)} bytes of the body arrived within {timeout_s:g} s, and it was not complete; send less at a "
            "time, or over a faster connection",
            headers={"Connection": "close"},
            reason="slow_body",
        ) from None
    except ClientDisconnect:
        raise RequestError(
            400, f"the connection closed after {len(body)} bytes of the body; send it whole", reason="disconnected"
        ) from None
    return bytes(body)


def _too_large(received: str, rest: str) -> RequestError:
    # The connection stays open: a client that sends on before it looks for an answer would find it reset.
    return RequestError(413, f"the body has {received}; {rest}", reason="body_too_large")
