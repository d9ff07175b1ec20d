"""ONNX Runtime reports sessions to its makers unless it is told not to, before it is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

OPEN = "from emboundary.service.engine import OnnxEngine, find_model; OnnxEngine.open(find_model(), 'cpu')"


def left_behind(folder: Path, code: str, **more: str) -> list[Path]:
    """What a process keeps in the user's folders."""
    places = {name: str(folder / name) for name in ("HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME")}
    unset = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    subprocess.run([sys.executable, "-c", code], env=unset | places | more, check=True)
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_session_leaves_nothing_in_the_users_folders(tmp_path: Path) -> None:
    assert left_behind(tmp_path, OPEN) == []


@pytest.mark.parametrize("package", ["emboundary.service", "emboundary.model"])
def test_whoever_wants_to_report_may(tmp_path: Path, package: str) -> None:
    tell = f"import {package}, os; print(os.environ['ORT_DISABLE_TELEMETRY'], file=open('{tmp_path}/told', 'w'))"
    left_behind(tmp_path, tell, ORT_DISABLE_TELEMETRY="0")
    assert (tmp_path / "told").read_text() == "0\n"
