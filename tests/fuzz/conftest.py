"""Fixtures of the fuzz tests: a process that reads volumes, each in a child of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

SECONDS = 5
EXAMINE = Path(__file__).with_name("examine.py")


@pytest.fixture(scope="session")
def examine() -> Iterator[Callable[..., dict[str, Any]]]:
    """Reads a volume in a process of its own and tells what came of it."""
    with subprocess.Popen([sys.executable, EXAMINE, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        asked, answers = server.stdin, server.stdout

        def ask(path: Path, kind: str = "", seconds: float = SECONDS) -> dict[str, Any]:
            kind = kind or path.name.partition("-")[0]
            request = {"where": f"{path}::/v" if kind == "hdf5" else str(path), "kind": kind, "seconds": seconds}
            asked.write(json.dumps(request).encode() + b"\n")
            asked.flush()
            found: dict[str, Any] = json.loads(answers.readline())
            return found

        yield ask
        asked.close()
