"""The page of results says what the JSON files beside it say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_the_page_is_written_from_the_results() -> None:
    script = Path(__file__).with_name("tables.py")
    ended = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, f"docs/benchmarks/README.md is out of date: run python {script.name}\n{ended.stderr}"
