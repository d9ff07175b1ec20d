"""What a diagnosis is asked: will serving work, with these settings?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from emboundary.service.settings import Settings


@dataclass(frozen=True)
class Question:
    """The settings, as ``emboundary serve`` would be given them.

    Attributes:
        config: file of settings; None: the one that the environment names, if any.
        options: settings that stand before the file and the environment, by their names; paths as text.
    """

    config: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def settings(self) -> Settings:
        """The settings in force.

        Raises:
            UsageError: a file, a name or a value that `emboundary serve` would refuse too.
            ImportError: a package is missing that settings need.
        """
        from emboundary.service.settings import load_settings

        return load_settings(self.config, **self.options)

    @property
    def device(self) -> Literal["auto", "cpu", "cuda"]:
        """The device that is asked for, also where the settings cannot be read."""
        device: Literal["auto", "cpu", "cuda"] = self.options.get("device") or "auto"
        return device
