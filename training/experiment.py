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
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from emboundary.training.config import ConfigError, TrainConfig, parse_table

Scalar = bool | int | float | str | list[int]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class VariantConfig(_Strict):
    """What one variant changes: dotted keys of the base configuration."""

    label: str
    set: dict[str, Scalar]


class ExperimentConfig(_Strict):
    """An experiment's file; ``set`` applies to every variant before the variant's own."""

    question: str
    base: str
    sections: Annotated[tuple[int, int], Field(strict=False)]
    set: dict[str, Scalar] = {}
    variant: Annotated[tuple[VariantConfig, ...], Field(strict=False, min_length=1)]


@dataclass(frozen=True)
class Variant:
    """A label and the complete configuration it stands for."""

    label: str
    config: TrainConfig


@dataclass(frozen=True)
class Experiment:
    """A question and the variants that answer it, scored on ``sections`` of their first volume."""

    question: str
    sections: tuple[int, int]
    variants: tuple[Variant, ...]


def load_experiment(path: Path) -> Experiment:
    """Read an experiment and build every variant's configuration.

    Raises:
        ConfigError: an unreadable file, a key that does not exist, or scored sections that a variant trains on.
    """
    try:
        config = ExperimentConfig.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
        base = tomllib.loads((path.parent / config.base).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"experiment {path}: {error.filename} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, ValidationError) as error:
        raise ConfigError(f"experiment {path} is not valid: {str(error).splitlines()[0]}") from error
    variants = tuple(
        Variant(v.label, _vary(base, {**config.set, **v.set}, origin=f"{path}, variant {v.label!r}"))
        for v in config.variant
    )
    for variant in variants:
        first, stop = variant.config.data[0].sections
        if first < config.sections[1] and config.sections[0] < stop:
            raise ConfigError(
                f"experiment {path}: scored sections {list(config.sections)} overlap the training sections "
                f"{[first, stop]} of variant {variant.label!r}; a choice must be made on sections never trained on"
            )
    return Experiment(config.question, config.sections, variants)


def _vary(base: dict[str, Any], changes: dict[str, Scalar], *, origin: str) -> TrainConfig:
    table = copy.deepcopy(base)
    for dotted, value in changes.items():
        *parents, key = dotted.split(".")
        inner = table
        for parent in parents:
            inner = inner[int(parent)] if isinstance(inner, list) else inner.setdefault(parent, {})
        inner[key] = value
    return parse_table(table, origin=origin)
