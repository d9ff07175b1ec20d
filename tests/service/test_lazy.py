"""Commands load what they need: a web server is no part of what most of them do."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from emboundary.service import console
from emboundary.service.cli import create_cli

PROGRAM = """
import json, sys
from emboundary.service import console
from emboundary.service.cli import create_cli

code = console.run(create_cli(), "emboundary", sys.argv[1:])
print(json.dumps([code, sorted(name for name in sys.modules if "." not in name)]))
"""


def loaded_by(*words: str) -> set[str]:
    done = subprocess.run([sys.executable, "-c", PROGRAM, *words], capture_output=True, text=True, check=True)
    code, names = json.loads(done.stdout.splitlines()[-1])
    assert code == 0, done.stderr
    return set(names)


def test_the_version_needs_nothing() -> None:
    assert not loaded_by("--version") & {"fastapi", "uvicorn", "httpx", "onnxruntime", "zarr", "numpy"}


def test_predict_needs_neither_server_nor_client() -> None:
    found = loaded_by("predict", "--help")
    assert "onnxruntime" in found
    assert not found & {"fastapi", "uvicorn", "starlette", "httpx"}


def test_the_client_needs_no_server() -> None:
    found = loaded_by("client", "predict", "--help")
    assert "httpx" in found
    assert not found & {"fastapi", "uvicorn", "starlette"}


def test_the_help_shows_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert console.run(create_cli(), "emboundary", ["--help"]) == 0
    shown = capsys.readouterr().out
    for words in ("predict +Map the", "check +Try", "serve +Serve", "benchmark +", "demo +Map", "client +Ask"):
        assert re.search(words, shown), words


def test_a_slip_of_the_keyboard_is_named_with_what_was_meant(capsys: pytest.CaptureFixture[str]) -> None:
    assert console.run(create_cli(), "emboundary", ["predct"]) == 2
    assert "No such command 'predct'. Did you mean 'predict'?" in capsys.readouterr().err
