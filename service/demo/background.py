"""A service in a process of its own, for as long as a ``with`` block lasts."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from emboundary.service.errors import RemoteError

_URL = re.compile(r"http://\S+")
_SECONDS_TO_STOP = 15.0


@contextmanager
def background_service(*options: str) -> Iterator[str]:
    """Run ``emboundary serve`` on a free port; gives its URL once it is ready, and stops it whatever happens.

    Args:
        options: further ones of the command.

    Raises:
        RemoteError: the service ended instead of getting ready, with the reason it gave.
    """
    command = [sys.executable, "-m", "emboundary.service", "serve", "--port", "0", *options]
    with tempfile.TemporaryFile("w+") as complaints:
        # A session of its own: Ctrl-C reaches this process alone, which then stops the service in good order.
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=complaints, text=True, start_new_session=True
        )
        try:
            yield _url_when_ready(process, complaints)
        finally:
            _stop(process)


def _url_when_ready(process: subprocess.Popen[str], complaints: IO[str]) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if match := _URL.search(line):
            return match.group()
    complaints.seek(0)
    last = (complaints.read().strip().splitlines() or ["it gave no reason"])[-1]
    raise RemoteError(f"the service did not start: {last.removeprefix('emboundary: error: ')}")


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(_SECONDS_TO_STOP)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
