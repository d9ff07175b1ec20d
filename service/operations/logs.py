"""The log: one line per event on stderr, as JSON or for people, with the id of the request that it belongs to.

Everything is logged through the standard library, by us and by the packages that we stand on, and passes here: neither
keys nor the places of files on this machine get through.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, TextIO

import structlog
from structlog.stdlib import ExtraAdder, ProcessorFormatter, add_log_level, add_logger_name
from structlog.types import Processor

from emboundary.service.security.redaction import redactor
from emboundary.service.settings import Settings

# What these say of every connection, our own access log says better.
_CHATTY = ("uvicorn.access", "httpx", "httpcore", "aiobotocore", "botocore", "fsspec", "asyncio", "h5py", "tifffile")
_LONGEST = 10_000  # characters of one value


@contextmanager
def logging_to(stream: TextIO, settings: Settings) -> Iterator[None]:
    """Log to a stream for the length of the block, and as before after it."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_formatter(stream, settings))
    root, level = logging.getLogger(), settings.log_level.upper()
    before = {name: logging.getLogger(name).level for name in (*_CHATTY, "uvicorn")}
    handlers, root_level = root.handlers[:], root.level
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in before:
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(root_level)
        for name, number in before.items():
            logging.getLogger(name).setLevel(number)


def _formatter(stream: TextIO, settings: Settings) -> ProcessorFormatter:
    people = settings.log_format == "console" or (settings.log_format == "auto" and stream.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        add_log_level,
        add_logger_name,
        ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[Processor] = [ProcessorFormatter.remove_processors_meta, structlog.processors.format_exc_info]
    last.append(_Redaction(redactor(settings)))
    last.append(
        structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback)
        if people
        else structlog.processors.JSONRenderer(json.dumps)
    )
    return ProcessorFormatter(foreign_pre_chain=shared, processors=last)


class _Redaction:
    """Cleans every text of an event; what is neither text nor number is turned into text first."""

    def __init__(self, clean: Callable[[str], str]) -> None:
        self._clean = clean

    def __call__(self, _: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        for key, value in event.items():
            if not isinstance(value, int | float | None):
                text = self._clean(str(value))
                if key != "exception":  # a line stays a line, whatever a client has put into a name
                    text = "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)
                event[key] = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
        return event
