"""Run the tests of the service on every version of Python that pyproject.toml claims: ``python tests/pythons.py``.

Each version has an environment of its own without torch, made by ``make test-serving``; they are made one after
another and tested side by side, as many as there are cores.  What the versions print comes when they have ended.  A
version that is not found on this machine is named as not tested; with ``--every`` it is a failure.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parent.parent
CLASSIFIER = "Programming Language :: Python :: "


def claimed() -> list[str]:
    """Versions that the classifiers name, oldest first."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = (name.removeprefix(CLASSIFIER) for name in project["classifiers"] if name.startswith(CLASSIFIER))
    return [version for version in named if re.fullmatch(r"\d+\.\d+", version)]


def find(version: str) -> str | None:
    """An interpreter of that version: this one, one on PATH, or one that pyenv keeps; None if there is none."""
    kept = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    on_path = shutil.which(f"python{version}")
    for candidate in (sys.executable, on_path, *sorted(kept.glob(f"{version}.*/bin/python"), reverse=True)):
        if candidate is not None and answers(str(candidate)) == version:
            return str(candidate)
    return None


def answers(interpreter: str) -> str:
    """The version that an interpreter says it is; nothing if it does not run, as those that pyenv has not chosen."""
    asked = [interpreter, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()


def make(target: str, interpreter: str, length: str) -> tuple[bool, str]:
    """Whether ``make`` brought about a target, and what it printed."""
    line = [os.environ.get("MAKE", "make"), "--no-print-directory", target]
    ended = subprocess.run(
        [*line, f"PYTHON={interpreter}", f"LENGTH={length}"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return ended.returncode == 0, ended.stdout


def say(line: str) -> None:
    """At once, whatever the output is."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def examine(version: str, interpreter: str, length: str) -> bool:
    """Whether the tests pass; prints what they said."""
    began = time.monotonic()
    good, said = make("test-serving", interpreter, length)
    how = "passed" if good else "FAILED"
    say(f"== Python {version} {how} in {time.monotonic() - began:.0f} s\n{said}")
    return good


def main() -> int:
    """Test all; 1 if a version fails, or is missing where every one is wanted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--except", dest="other", default="", help="a version that is tested in another way")
    parser.add_argument("--length", choices=("short", "whole"), default="short", help="of the tests")
    parser.add_argument("--every", action="store_true", help="a version that is not found is a failure")
    given = parser.parse_args()
    wanted = [version for version in claimed() if version != given.other]
    found = {version: interpreter for version in wanted if (interpreter := find(version)) is not None}
    results = {}
    for version, interpreter in found.items():
        good, said = make("serving-environment", interpreter, given.length)
        if not good:
            say(f"== Python {version} FAILED: its environment could not be made\n{said}")
            results[version] = False
    ready = {version: interpreter for version, interpreter in found.items() if version not in results}
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        running = {v: pool.submit(examine, v, interpreter, given.length) for v, interpreter in ready.items()}
    results |= {version: future.result() for version, future in running.items()}
    for version in claimed():
        if version == given.other:
            say(f"Python {version}: by make test")
        elif version not in found:
            say(f"Python {version}: NOT TESTED, no python{version} on this machine")
        else:
            say(f"Python {version}: {'passed' if results[version] else 'FAILED'} ({found[version]})")
    return int(not all(results.values()) or (given.every and len(found) < len(wanted)))


if __name__ == "__main__":
    sys.exit(main())
