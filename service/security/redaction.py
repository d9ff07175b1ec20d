"""Answers and logs without what they must not tell: where things lie on this machine, and keys."""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

from platformdirs import user_state_path

from emboundary.service.settings import Settings

_PACKAGE = Path(__file__).parents[2]
_KEY = re.compile(r"\bemb_[A-Za-z0-9_-]{20,}")
_USER_IN_URL = re.compile(r"(?<=://)[^\s/@]+@")


def redact(text: str, settings: Settings) -> str:
    """The same text without absolute paths, keys and passwords.

    Names inside the only data root become relative to it, which is how a client may give them; with several roots they
    begin with ``<data-1>``, ``<data-2>`` and so on.
    """
    return redactor(settings)(text)


@lru_cache(maxsize=8)
def redactor(settings: Settings) -> Callable[[str], str]:
    """``redact`` for these settings, to be kept where much is written."""
    names: dict[str, str] = {}
    for path, name in _places(settings):
        for form in (path.absolute(), path.resolve()):
            if len(form.parts) > 1:  # never the root of everything
                names.setdefault(str(form), name)
    longest_first = sorted(names, key=len, reverse=True)
    # Whole names only: /data is no part of /database, nor of https://host/data.
    either = "|".join(map(re.escape, longest_first))
    known = re.compile(rf"(?<![\w./-])({either})(?:/+(?=([^\s'\"),;/]))|/*(?![\w./-]))")

    def replace(found: re.Match[str]) -> str:
        name, goes_on = names[found[1]], found[2] is not None
        return (name and f"{name}/") if goes_on else (name or "<data>")

    def apply(text: str) -> str:
        return _USER_IN_URL.sub("***@", _KEY.sub("emb_***", known.sub(replace, text)))

    return apply


def _places(settings: Settings) -> Iterator[tuple[Path, str]]:
    single = len(settings.data_roots) == 1
    for number, root in enumerate(settings.data_roots, 1):
        yield root, "" if single else f"<data-{number}>"
    yield settings.repository, "<models>"
    if "/" in settings.model:
        yield Path(settings.model).parent, "<models>"
    yield settings.state_dir or user_state_path("emboundary"), "<state>"
    if settings.api_keys_file is not None:
        yield settings.api_keys_file.parent, "<keys>"
    yield _PACKAGE, "<program>"
    for prefix in (sys.prefix, sys.base_prefix):
        yield Path(prefix), "<python>"
    yield Path(tempfile.gettempdir()), "<tmp>"
    yield Path.cwd(), "."
    yield Path.home(), "~"
