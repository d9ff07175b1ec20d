"""Questions that may hang or crash the process which asks them: a process of its own asks, and has so many seconds."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

# -P: nothing in the current folder is taken for a package.
_COMMAND = [sys.executable, "-P", "-m", "emboundary.service.diagnosis.child"]


class ProbeError(Exception):
    """A question that was not answered, and why."""


def ask(name: str, question: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
    """What the probe of a name answers.

    Args:
        name: one of ``probes.PROBES``.
        question: its arguments, as JSON values.
        timeout_s: from the process's start to its answer, in seconds.

    Raises:
        ProbeError: no answer in time, a crash, or an error of the probe.
    """
    process = subprocess.Popen(
        [*_COMMAND, name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(json.dumps(question).encode(), timeout_s)
    except subprocess.TimeoutExpired:
        _abandon(process)
        raise ProbeError(f"no answer within {timeout_s:g} s") from None
    except BaseException:
        _abandon(process)
        raise
    if process.returncode < 0:
        raise ProbeError(f"the process that tried it was ended by {signal.Signals(-process.returncode).name}")
    lines = output.splitlines()
    if process.returncode or not lines:
        raise ProbeError(f"the process that tried it ended with code {process.returncode} and no answer")
    found: dict[str, Any] = json.loads(lines[-1])
    if "failure" in found:
        raise ProbeError(found["failure"])
    answer: dict[str, Any] = found["answer"]
    return answer


def _abandon(process: subprocess.Popen[bytes]) -> None:
    """End a process, but do not wait for it for long: one that hangs inside a driver does not even end when killed."""
    process.kill()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    try:
        process.wait(1)
    except subprocess.TimeoutExpired:
        # Nobody will wait for it: the interpreter need not warn of it.
        process.returncode = -signal.SIGKILL
