from __future__ import annotations

import io
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from structlog.contextvars import bound_contextvars

from emboundary.service.operations.logs import logging_to
from emboundary.service.security.keys import new_key
from emboundary.service.settings import Settings

SECRET, _ = new_key("lab", frozenset({"predict"}))


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_line_is_one_json_object_with_the_requests_id() -> None:
    stream = io.StringIO()
    with logging_to(stream, Settings()), bound_contextvars(request_id="r1"):
        logging.getLogger("somewhere").warning("disk is %s", "full", extra={"status": 507, "ms": 1.5})
    (line,) = lines(stream.getvalue())
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "disk is full",
        "level": "warning",
        "logger": "somewhere",
        "request_id": "r1",
        "status": 507,
        "ms": 1.5,
    }


def test_line_ends_and_colours_in_a_message_make_no_second_line() -> None:
    for log_format in ("json", "console"):
        stream = io.StringIO()
        with logging_to(stream, Settings(log_format=log_format)):
            logging.getLogger("x").error("on\ne\x1b", extra={"client": 'a\nlevel=info event="fine"\x1b[2J'})
        assert len(stream.getvalue().splitlines()) == 1, log_format
        assert "\x1b" not in stream.getvalue()


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_neither_keys_nor_places_get_through(tmp_path: Path, log_format: Any) -> None:
    stream = io.StringIO()
    with logging_to(stream, Settings(log_format=log_format, data_roots=(tmp_path,))):
        try:
            raise ValueError(f"{tmp_path}/raw.tif and {SECRET}")
        except ValueError:
            logging.getLogger("x").exception("%s %s", tmp_path / "raw.tif", SECRET, extra={"more": [SECRET, tmp_path]})
    text = stream.getvalue()
    assert SECRET not in text
    assert str(tmp_path) not in text
    assert str(Path(__file__).parents[2]) not in text
    assert "ValueError: raw.tif and emb_***" in text
    assert "Traceback" in text


def test_lines_below_the_level_are_not_written() -> None:
    stream = io.StringIO()
    with logging_to(stream, Settings(log_level="warning")):
        logging.getLogger("x").info("no")
        logging.getLogger("uvicorn.error").info("no")
        logging.getLogger("x").warning("yes")
    assert [line["event"] for line in lines(stream.getvalue())] == ["yes"]


def test_afterwards_everything_is_as_before() -> None:
    root = logging.getLogger()
    before = (root.handlers[:], root.level, logging.getLogger("uvicorn").level)
    with logging_to(io.StringIO(), Settings(log_level="debug")):
        assert root.handlers != before[0]
    assert (root.handlers, root.level, logging.getLogger("uvicorn").level) == before
