"""A service in a process of its own, started as people start it, and what that process holds in memory."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PATIENCE_S = 120  # far beyond what a start or an end takes: what hangs fails instead of blocking a campaign


@dataclass(frozen=True)
class Service:
    """A running service.

    Attributes:
        process: it answers requests itself; there are no others.
        url: where it listens.
        log: the file that its standard error goes to.
    """

    process: subprocess.Popen[str]
    url: str
    log: Path

    @property
    def host(self) -> str:
        """Host and port."""
        return self.url.removeprefix("http://")

    def memory(self) -> int:
        """Bytes in memory now (VmRSS)."""
        return self._status("VmRSS")

    def peak(self) -> int:
        """Most bytes in memory at once since the start, or since ``forget_peak`` (VmHWM)."""
        return self._status("VmHWM")

    def forget_peak(self) -> None:
        """Let ``peak`` begin anew."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def files(self) -> int:
        """Open files and connections."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def threads(self) -> int:
        """Threads."""
        return len(list(Path(f"/proc/{self.process.pid}/task").iterdir()))

    def _status(self, name: str) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith(f"{name}:"))
        return int(line.split()[1]) * 1024


@contextmanager
def serving(*options: object, environment: Mapping[str, str] | None = None) -> Iterator[Service]:
    """Start ``emboundary serve`` on a free port; it is killed at the end, unless it has ended.

    Args:
        options: further options of the command.
        environment: settings as ``EMBOUNDARY_...``.

    Raises:
        RuntimeError: it ended before it served.
    """
    line = [sys.executable, "-m", "emboundary.service", "serve", "--port", "0", *map(str, options)]
    with tempfile.NamedTemporaryFile("w+", suffix=".log") as log:
        process = subprocess.Popen(
            line, stdout=subprocess.PIPE, stderr=log, text=True, env={**os.environ, **(environment or {})}
        )
        assert process.stdout is not None
        try:
            said = process.stdout.readline()
            found = re.search(r"http://\S+", said)
            if found is None:
                process.wait(PATIENCE_S)
                raise RuntimeError(f"{' '.join(line)} did not start: {said}{Path(log.name).read_text()[-2000:]}")
            yield Service(process, found[0], Path(log.name))
        finally:
            process.kill()
            process.wait(PATIENCE_S)
            process.stdout.close()


def end(service: Service, number: int = signal.SIGTERM) -> int:
    """Send a signal, wait, and give the exit code."""
    service.process.send_signal(number)
    return service.process.wait(PATIENCE_S)
