"""A base with Python where no registry of images can be reached: a small Debian of debootstrap, kept for later."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from buildah import Buildah
from workbench import phase, run

SUITE = "trixie"  # has Python 3.13
NAME = "localhost/image-test-base:latest"
_PACKAGES = "python3,python3-venv,ca-certificates"
# Left in every such folder by apt, and of no use in an image.
_LEFTOVERS = ("var/cache/apt", "var/lib/apt/lists", "var/log/apt", "usr/share/doc", "usr/share/man", "usr/share/locale")


def make_base(buildah: Buildah, scratch: Path) -> None:
    """Put the base among the images."""
    archive = _cache() / f"{SUITE}.tar"
    if not archive.is_file():
        with phase(f"making a Debian {SUITE} with Python"):
            _debootstrap(scratch / SUITE, archive)
    container = buildah("from", "scratch")
    buildah("add", "--quiet", container, archive, "/")
    buildah("config", "--cmd", "python3", container)
    buildah("commit", "--quiet", "--rm", container, NAME)


def _debootstrap(folder: Path, archive: Path) -> None:
    run(["debootstrap", "--variant=minbase", f"--include={_PACKAGES}", SUITE, folder])
    for name in _LEFTOVERS:
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir(parents=True)
    archive.parent.mkdir(parents=True, exist_ok=True)
    half_done = archive.with_suffix(".half-done")
    run(["tar", "--numeric-owner", "-C", folder, "-cf", half_done, "."])
    half_done.rename(archive)
    shutil.rmtree(folder)


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "emboundary-image-test"
