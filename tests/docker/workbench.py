"""What the image test stands on: commands that must succeed, tools, a place of its own, and where pip is to look."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_TAIL = 60  # lines of a failed command's output that are shown


def say(text: str) -> None:
    """One line for whoever watches."""
    sys.stdout.write(f"image-test: {text}\n")
    sys.stdout.flush()


@contextmanager
def phase(what: str) -> Iterator[None]:
    """Say what is done, and how long it took."""
    say(f"{what} ...")
    started = time.monotonic()
    yield
    say(f"{what}: {time.monotonic() - started:.0f} s")


def run(words: Sequence[str | Path], **options: object) -> str:
    """Standard output of a command.

    Raises:
        SystemExit: it failed; with the end of all that it printed.
    """
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    if done.returncode:
        tail = "\n".join(f"{done.stdout}\n{done.stderr}".strip().splitlines()[-_TAIL:])
        sys.exit(f"image-test: FAILED, exit code {done.returncode}: {' '.join(map(str, words))}\n{tail}")
    return str(done.stdout)


def need_tools(*packages: str) -> None:
    """Install Debian packages whose command of the same name is missing.

    Raises:
        SystemExit: not root.
    """
    if os.geteuid():
        sys.exit(
            "image-test: must run as root: it makes a Debian with debootstrap and mounts; try sudo make image-test"
        )
    missing = [name for name in packages if shutil.which(name) is None]
    if missing:
        with phase(f"installing {' '.join(missing)} with apt-get"):
            environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
            run(["apt-get", "update", "-qq"], env=environment)
            run(["apt-get", "install", "-qq", "-y", "--no-install-recommends", *missing], env=environment)


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder that is gone afterwards, whatever happened."""
    folder = Path(tempfile.mkdtemp(prefix="emboundary-image-test-", dir="/var/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class PipConfiguration:
    """Where pip inside a container is to look: where pip outside does.

    The configuration travels as a secret, and folders that it names as mounts: nothing of it gets into an image.

    Attributes:
        file: the configuration; None where nothing is set on this machine.
        places: folders and files that it names.
    """

    file: Path | None
    places: tuple[Path, ...]

    @classmethod
    def of_this_machine(cls, folder: Path) -> PipConfiguration:
        """What `pip config list` tells, as a file in a folder."""
        settings: dict[str, str] = {}
        asked = [sys.executable, "-m", "pip", "config", "list"]
        told = subprocess.run(asked, capture_output=True, text=True, check=False).stdout  # nothing where pip is missing
        for line in told.splitlines():
            found = re.fullmatch(r"(?:global|install|:env:)\.([\w-]+)=(.+)", line)
            if found:
                # Files come later in the list than the environment, which goes before them.
                settings.setdefault(found[1], str(ast.literal_eval(found[2])))
        if not settings:
            return cls(None, ())
        file = folder / "pip.conf"
        file.touch(mode=0o600)
        values = (f"{name} = {' '.join(value.split())}" for name, value in settings.items())
        file.write_text("\n".join(("[global]", *values)) + "\n", encoding="utf-8")
        named = {word.removeprefix("file://") for value in settings.values() for word in value.split()}
        places = {_mountable(Path(word)) for word in named if word.startswith("/") and Path(word).exists()}
        return cls(file, tuple(sorted(places)))

    @property
    def for_build(self) -> list[str]:
        """Options of `buildah build`."""
        secret = [] if self.file is None else ["--secret", f"id=pip,src={self.file}"]
        return [*secret, *self._volumes]

    @property
    def for_run(self) -> list[str]:
        """Options of `buildah run`."""
        file = [] if self.file is None else ["--volume", f"{self.file}:/etc/pip.conf:ro"]
        return [*file, *self._volumes]

    @property
    def _volumes(self) -> list[str]:
        return [option for place in self.places for option in ("--volume", f"{place}:{place}:ro")]


def _mountable(place: Path) -> Path:
    # A folder in the form of an index has its files beside it, and links to them.
    return place.parent if place.name == "simple" else place
