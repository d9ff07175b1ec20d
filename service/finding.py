"""What a check found: shown by ``emboundary doctor`` and ``emboundary check``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

State = Literal["ok", "note", "failed"]


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        subject: what was looked at.
        state: ``failed`` where something that is needed does not work; ``note`` where it works, but not at its best.
        found: what is there, in one line.
        remedy: what to do; empty where nothing is to be done.
        facts: the same for programs: JSON values by name, the unit at the end of the name.
    """

    subject: str
    state: State
    found: str
    remedy: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
