"""Run every test that has a long form at its full length, and write what it did: ``python campaign.py [FILE ...]``.

Those are the test files that look at EMBOUNDARY_CAMPAIGN; each says with ``record_property`` what it counted.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from measuring import RESULTS, publish, say

TESTS = Path(__file__).parents[1]
VARIABLE = "EMBOUNDARY_CAMPAIGN"


def campaigns() -> list[Path]:
    """Test files that have a long form."""
    return sorted(path for path in TESTS.rglob("test_*.py") if VARIABLE in path.read_text())


def run(path: Path) -> dict[str, Any]:
    """One file's tests at full length; how each ended, and what it counted."""
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.xml"
        options = ["-q", f"--junitxml={report}", "-o", "junit_family=xunit1", "-p", "no:cacheprovider"]
        began = time.perf_counter()
        ended = subprocess.run(
            [sys.executable, "-m", "pytest", *options, str(path)], env={**os.environ, VARIABLE: "1"}, check=False
        )
        seconds = time.perf_counter() - began
        cases = list(ElementTree.parse(report).getroot().iter("testcase"))
    tests = [
        {
            "test": case.attrib["name"],
            "ended": next((c.tag for c in case if c.tag in ("failure", "error", "skipped")), "passed"),
            "seconds": float(case.attrib["time"]),
            **{p.attrib["name"]: p.attrib["value"] for p in case.iter("property")},
        }
        for case in cases
    ]
    return {"file": str(path.relative_to(TESTS.parent)), "exit": ended.returncode, "seconds": seconds, "tests": tests}


def earlier() -> dict[str, dict[str, Any]]:
    """What is known of each file from before."""
    path = RESULTS / "campaigns.json"
    return {found["file"]: found for found in json.loads(path.read_text())["campaigns"]} if path.exists() else {}


def main() -> int:
    """Run all campaigns, or the named files, and keep what is known of the others; 1 if any failed."""
    failed = False
    for path in [Path(name).resolve() for name in sys.argv[1:]] or campaigns():
        say(f"campaign {path}")
        found = run(path)
        failed |= found["exit"] != 0
        known = earlier() | {found["file"]: found}
        publish("campaigns", {"campaigns": [known[name] for name in sorted(known)]})
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
