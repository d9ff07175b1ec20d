"""Malformed requests to the service: 4xx with one line of reason, bounded memory, and right answers in between.

``make test`` sends some hundred; EMBOUNDARY_CAMPAIGN=1 in the environment (``make campaign``) 20,000.  What they are,
and what is asked of each answer, says ``tests/benchmarks/requests_fuzz.py``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

CAMPAIGN = os.environ.get("EMBOUNDARY_CAMPAIGN") == "1"
COUNT = 20_000 if CAMPAIGN else 600
MOST_GROWTH = 100_000_000
PROGRAM = Path(__file__).parents[1] / "benchmarks" / "requests_fuzz.py"
PATIENCE_S = 7200


def test_malformed_requests_are_refused(repository: Path, record_property: Callable[[str, object], None]) -> None:
    line = [sys.executable, str(PROGRAM), "--repository", str(repository), "--count", str(COUNT)]
    ended = subprocess.run(line, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert ended.stdout, ended.stderr[-3000:]
    found = json.loads(ended.stdout)
    assert found["failures"] == []
    assert found["tracebacks"] == 0, found["log_end"]
    assert found["ready afterwards"]
    assert (found["right afterwards"], found["wrong afterwards"]) == (40, [])
    assert found["memory_growth"] < MOST_GROWTH
    assert found["files_growth"] < 20
    assert found["threads_growth"] < 20
    total: Counter[str] = Counter()
    for answers in found["answers"].values():
        total.update(answers)
    assert total.total() == found["requests"] == COUNT
    assert total["200"] < COUNT / 4
    record_property("requests", COUNT)
    for status, count in sorted(total.items()):
        record_property(f"answered {status}", count)
    for name in ("memory_growth", "memory_peak"):
        record_property(f"{name}, MB", round(found[name] / 1e6))
