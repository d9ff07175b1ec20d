"""Answers that hold their place in memory until the client has taken them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

_CHUNK = 1 << 18


class Reply(Response):
    """A body that is sent in parts, each when the one before has left; a client that stops taking them is cut off.

    Args:
        content: the body.
        media_type: of it.
        headers: of the answer.
        stall_s: longest time for one part, in seconds.
        release: called once it is sent, or cannot be.
    """

    def __init__(
        self,
        content: bytes,
        media_type: str,
        headers: Mapping[str, str],
        *,
        stall_s: float,
        release: Callable[[], None],
    ) -> None:
        super().__init__(content, media_type=media_type, headers=headers)
        self._stall_s = stall_s
        self._release = release

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  # a response's call
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            parts = memoryview(self.body)
            for first in range(0, len(parts), _CHUNK):
                async with asyncio.timeout(self._stall_s):
                    part = bytes(parts[first : first + _CHUNK])
                    await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            pass  # unfinished, so that the server closes the connection
        finally:
            self._release()
