"""buildah with a store of its own, which no other containers and images of the machine are in."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench import run


@dataclass(frozen=True)
class Image:
    """What an image says of how it is to be run.

    Attributes:
        environment: variables.
        command: entry point and default arguments.
        entry_point: the former alone.
        user: ``UID:GID``.
        health: command that tells whether it is well.
        labels: as they stand in the image.
    """

    environment: dict[str, str]
    command: tuple[str, ...]
    entry_point: tuple[str, ...]
    user: str
    health: tuple[str, ...]
    labels: dict[str, str]


class Buildah:
    """Calls of buildah.

    Args:
        folder: where everything is kept that it makes.
    """

    def __init__(self, folder: Path) -> None:
        self._words = ["buildah", "--root", str(folder / "store"), "--runroot", str(folder / "run")]
        if "STORAGE_DRIVER" in os.environ:  # which buildah does not heed beside --root
            self._words += ["--storage-driver", os.environ["STORAGE_DRIVER"]]
        self._environment = {"BUILDAH_ISOLATION": "chroot", **os.environ}

    def __call__(self, *words: str | Path) -> str:
        return run([*self._words, *words], env=self._environment).strip()

    def attempt(self, words: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
        """A call that may fail."""
        return subprocess.run(
            [*self._words, *map(str, words)], env=self._environment, capture_output=True, text=True, check=False
        )

    def show(self, *words: str | Path) -> int:
        """A call whose output is shown as it comes; its exit code."""
        return subprocess.run([*self._words, *map(str, words)], env=self._environment, check=False).returncode

    def image(self, name: str) -> Image:
        """What an image says of itself."""
        told: dict[str, Any] = json.loads(self("inspect", "--type", "image", name))
        config = told["Docker"]["config"]
        entry_point = tuple(config["Entrypoint"])
        return Image(
            dict(entry.split("=", 1) for entry in config["Env"]),
            entry_point + tuple(config["Cmd"]),
            entry_point,
            config["User"],
            tuple(config["Healthcheck"]["Test"][1:]),
            config["Labels"],
        )

    def bytes(self, name: str) -> int:
        """Size of an image."""
        (listed,) = json.loads(self("images", "--json", name))
        return _bytes(listed["size"])

    def remove_everything(self) -> None:
        """Leave nothing mounted; failures are of no interest any more."""
        self.attempt(["umount", "--all"])
        self.attempt(["rm", "--all"])
        self.attempt(["rmi", "--all", "--force"])


def _bytes(shown: str) -> int:
    number, unit = shown.split()
    return round(float(number) * {"B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9}[unit.upper()])
