"""A container as Docker runs one that is confined as compose.yaml says: read-only, without capabilities, as any user.

Isolation `chroot` of buildah knows neither a read-only root nor a process 1 of its own, so util-linux makes them here.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

_WAIT_S = 120
_APART = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private")


class Container:
    """One process tree in the image's files.

    Args:
        root: folder of the image's files.
        command: what becomes process 1.
        environment: all variables that it sees.
        user: ``UID:GID``; neither needs to have a name.
        mounts: folders of this machine by their place inside; those ending in ``:ro`` cannot be written.
        log: where what it prints is kept.
    """

    def __init__(
        self,
        root: Path,
        command: Sequence[str],
        environment: dict[str, str],
        user: str,
        mounts: dict[str, Path],
        log: Path,
    ) -> None:
        self.log = log
        with log.open("w") as stream:
            self._process = subprocess.Popen(
                [*_APART, "sh", "-ec", _script(root, command, environment, user, mounts)],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self) -> Container:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    @property
    def text(self) -> str:
        """What it has printed."""
        return self.log.read_text()

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Wait until it has printed something; SystemExit with all that it printed where it ends, or never does."""
        end = time.monotonic() + _WAIT_S
        while time.monotonic() < end:
            gone = self._process.poll() is not None
            if found := re.search(pattern, self.text):
                return found
            if gone:
                break
            time.sleep(0.05)
        sys.exit(f"image-test: FAILED: the container never said {pattern!r}:\n{self.text}")

    def send(self, number: signal.Signals) -> None:
        """Send process 1 a signal, as `docker stop` does."""
        (child,) = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        os.kill(int(child), number)

    def wait(self, seconds: float) -> int:
        """Its exit code; SystemExit where it has not ended by then."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            sys.exit(f"image-test: FAILED: the container is still there {seconds:g} s later:\n{self.text}")


def _script(root: Path, command: Sequence[str], environment: dict[str, str], user: str, mounts: dict[str, Path]) -> str:
    uid, gid = user.split(":")
    lines = [f"mount --bind {root} {root}", f"mount -o remount,bind,ro {root}"]
    lines += [f"mount -t proc proc {root}/proc", f"mount --rbind /dev {root}/dev"]
    lines += [f"mount -t tmpfs -o mode=1777 tmpfs {root}/tmp"]
    for inside, outside in mounts.items():
        place = f"{root}{inside.removesuffix(':ro')}"
        lines.append(f"mount --bind {outside} {place}")
        if inside.endswith(":ro"):
            lines.append(f"mount -o remount,bind,ro {place}")
    variables = [f"{name}={value}" for name, value in environment.items()]
    confined = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--no-new-privs"]
    confined += ["--bounding-set=-all", "--inh-caps=-all"]
    lines.append(f"exec {shlex.join(['env', '-i', *variables, 'chroot', str(root), *confined, *command])}")
    return "\n".join(lines)
