"""Experiments: one base configuration, a list of variants, scored on the same sections that none was trained on.

    base = "../configs/d4.toml"          # relative to the experiment's file
    sections = [11, 13]                  # scored on; must not overlap the training sections
    question = "Where does the maxout of the stem serve best?"

    [[variant]]
    label = "maxout on the skip"
    set = { "model.maxout" = "skip" }

Every variant trains in its own folder and resumes there, so a finished experiment is scored again for nothing.
"""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from emboundary.training.config import DataConfig, Sections, TrainConfig, parse_table, refuse_seen
from emboundary.training.strict import ConfigError, Strict, read_based, read_table, validated

Value = bool | int | float | str | list[int]


class VariantConfig(Strict):
    """What one variant changes: dotted keys of the base configuration."""

    label: str
    set: dict[str, Value]


class ExperimentConfig(Strict):
    """An experiment's file; ``set`` applies to every variant before the variant's own.

    Attributes:
        sections: of the first volume, scored on; None: every volume's validation sections.
        eight: whether networks that are not exact are scored with 8 passes too, which takes its time.
    """

    question: str
    base: str
    sections: Sections | None = None
    eight: bool = True
    set: Annotated[dict[str, Value], Field(default_factory=dict)]
    variant: Annotated[tuple[VariantConfig, ...], Field(strict=False, min_length=1)]


@dataclass(frozen=True)
class Variant:
    """A label, the complete configuration it stands for, and the sections of which volumes it is scored on."""

    label: str
    config: TrainConfig
    scored: tuple[tuple[DataConfig, tuple[int, int]], ...]

    @property
    def folder(self) -> str:
        """Name of its run's folder."""
        return "".join(c if c.isalnum() else "-" for c in self.label)


@dataclass(frozen=True)
class Experiment:
    """A question and the variants that answer it; ``eight``: scored with 8 passes too."""

    question: str
    eight: bool
    variants: tuple[Variant, ...]


def load_experiment(path: Path) -> Experiment:
    """Read an experiment and build every variant's configuration.

    Raises:
        ConfigError: an unreadable file, a key that does not exist, labels that are not told apart, or scored
            sections that a variant trains on.
    """
    config = validated(ExperimentConfig, read_table(path), origin=f"experiment {path}")
    base = read_based(path.parent / config.base)
    variants = []
    for v in config.variant:
        origin = f"experiment {path}, variant {v.label!r}"
        table = varied(base, {**config.set, **v.set}, origin=origin)
        parsed = parse_table(table, origin=origin)
        variants.append(Variant(v.label, parsed, _scored(parsed, config.sections, origin=origin)))
    folder, uses = Counter(v.folder for v in variants).most_common(1)[0]
    if uses > 1:
        raise ConfigError(
            f"experiment {path}: {uses} variants have the folder {folder}; labels must differ in letters or digits"
        )
    return Experiment(config.question, config.eight, tuple(variants))


def _scored(
    config: TrainConfig, sections: tuple[int, int] | None, *, origin: str
) -> tuple[tuple[DataConfig, tuple[int, int]], ...]:
    if sections is None:
        scored = [(volume, volume.validation) for volume in config.data if volume.validation]
    else:
        scored = [(config.data[0], sections)]
    if not scored:
        raise ConfigError(f"{origin}: sections is missing, and no volume has validation sections; give one of them")
    for volume, held_out in scored:
        refuse_seen(config, volume, held_out, origin=origin)
    return tuple(scored)


def varied(base: dict[str, Any], changes: dict[str, Value], *, origin: str) -> dict[str, Any]:
    """A copy of a table with some of its dotted keys set; numbers among them count the items of a list.

    The last table on the way may be missing: a table whose keys all have defaults need not be written down.

    Raises:
        ConfigError: a way through something that is no table, or an item that a list does not have.
    """
    table = copy.deepcopy(base)
    for dotted, value in changes.items():
        *parents, key = dotted.split(".")
        inner: Any = table
        try:
            for parent in parents:
                inner = inner[int(parent)] if isinstance(inner, list) else inner.setdefault(parent, {})
            inner[key] = value
        except (AttributeError, IndexError, TypeError, ValueError):
            raise ConfigError(
                f"{origin}: {dotted} leads nowhere in the base configuration; give a key of one of its tables"
            ) from None
    return table
