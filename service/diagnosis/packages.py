"""The interpreter and the installed packages."""

from __future__ import annotations

import re
import sys
from importlib.metadata import PackageNotFoundError, requires, version

from emboundary.service.finding import Finding

_OLDEST_PYTHON = (3, 11)


def check_python() -> Finding:
    """The interpreter's version."""
    found = ".".join(str(part) for part in sys.version_info[:3])
    facts = {"version": found, "executable": sys.executable}
    if sys.version_info[:2] < _OLDEST_PYTHON:
        return Finding("Python", "failed", found, "use Python 3.11 or newer", facts)
    return Finding("Python", "ok", f"{found} at {sys.executable}", facts=facts)


def check_packages() -> Finding:
    """Whether everything that serving needs is installed, in which version."""
    try:
        wanted = [r for r in requires("emboundary") or () if "extra ==" not in r]
    except PackageNotFoundError:
        return Finding("packages", "note", "emboundary is not installed, but run from a checkout", "pip install .")
    names = [match.group() for match in (re.match(r"[\w.-]+", requirement) for requirement in wanted) if match]
    versions = {name: _version(name) for name in names}
    missing = [name for name, found in versions.items() if found is None]
    if missing:
        remedy = "install emboundary again with pip"
        return Finding("packages", "failed", f"missing: {', '.join(missing)}", remedy, {"missing": missing})
    own = _version("emboundary")
    found = f"emboundary {own} and the {len(names)} packages that it needs"
    return Finding("packages", "ok", found, facts={"version": own, "versions": versions})


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
