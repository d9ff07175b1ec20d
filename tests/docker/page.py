"""The commands of docs/docker.md, so that what the page shows is what is tried."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass

from workbench import ROOT

_TEXT = (ROOT / "docs" / "docker.md").read_text(encoding="utf-8")
_CALL = re.compile(
    r'^(?P<variables>(?:\w+=(?:"[^"]*"|\S+) )*)docker compose(?P<flags>(?: (?:-f|--profile) \S+)*)(?P<words>.*)$', re.M
)


@dataclass(frozen=True)
class Call:
    """One line that calls Docker Compose.

    Attributes:
        variables: assignments before it.
        flags: which files and profiles it names.
        words: the subcommand and the rest.
    """

    variables: str
    flags: str
    words: tuple[str, ...]


def questions() -> list[str]:
    """Scripts that ask a running service."""
    return [block for block in _blocks() if "curl" in block]


def compose_calls() -> list[Call]:
    """Calls of Docker Compose."""
    found = [match for block in _blocks() for match in _CALL.finditer(block)]
    return [Call(match["variables"], match["flags"].strip(), tuple(match["words"].split())) for match in found]


def megabytes(target: str) -> int:
    """Size of an image beside its base, as the page tells it, in millions of bytes."""
    found = re.search(rf"^\| `{target}` \| (\d+) \|", _TEXT, re.M)
    assert found is not None, f"docs/docker.md has lost the size of {target}"
    return int(found[1])


def _blocks() -> list[str]:
    return [textwrap.dedent(block) for block in re.findall(r"^ *```sh\n(.*?)^ *```$", _TEXT, re.DOTALL | re.M)]
