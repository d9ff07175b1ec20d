"""Experiments: one base configuration, a list of variants, scored on the same held-out data.

    base = "../configs/d4.toml"          # relative to the experiment's file
    sections = [11, 13]                  # scored on; must not overlap the training sections
    question = "Where does the maxout of the stem serve best?"

    [budget.smoke]                       # what --budget smoke changes
    set = { "optimiser.steps" = 2 }

    [[variant]]
    label = "maxout on the skip"
    set = { "model.maxout" = "skip" }

A base with a table ``[network]`` is a classifier's, one with ``[model]`` a segmenter's.  Every variant and seed trains
in its own folder and resumes there, so a finished experiment is scored again for nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emboundary.training.classifying.config import ClassifierConfig, parse_classifier
from emboundary.training.config import DataConfig, TrainConfig, parse_table, refuse_seen
from emboundary.training.experimenting.file import BudgetConfig, ExperimentConfig, VariantConfig, read_experiment
from emboundary.training.strict import ConfigError, read_based, varied


@dataclass(frozen=True)
class Variant:
    """A label, the complete configuration it stands for, and what it is scored on.

    Attributes:
        scored: sections of volumes; empty for classifiers, whose data sets have a test part.
        published: see ``VariantConfig``.
    """

    label: str
    config: TrainConfig | ClassifierConfig
    scored: tuple[tuple[DataConfig, tuple[int, int]], ...]
    published: dict[str, float]
    several: bool = False

    @property
    def folder(self) -> str:
        """Name of its run's folder."""
        label = "".join(c if c.isalnum() else "-" for c in self.label)
        return f"{label}-seed{self.config.seed}" if self.several else label


@dataclass(frozen=True)
class Experiment:
    """A question and the variants that answer it, one for each seed.

    Attributes:
        name: of its file.
        note: what its budget is.
        rounds: see ``BudgetConfig``.
        eight, order, score, shown, about: see ``ExperimentConfig``.
    """

    name: str
    question: str
    about: str
    budget: str | None
    note: str
    rounds: int
    eight: bool
    order: tuple[str, ...]
    score: str | None
    shown: tuple[str, ...]
    variants: tuple[Variant, ...]


def load_experiment(path: Path, budget: str | None = None, only: Sequence[str] = ()) -> Experiment:
    """Read an experiment and build every variant's configuration.

    Args:
        path: of its file.
        budget: one of those that the file has; None: the file as it stands.
        only: labels of the variants to take; all if empty.

    Raises:
        ConfigError: an unreadable file, a key that does not exist, a budget or label that is not there, labels that
            are not told apart, or scored sections that a variant trains on.
    """
    config = read_experiment(path)
    chosen = _budget(config, budget, path)
    base = read_based(Path(config.base))
    seeds = (chosen and chosen.seeds) or config.seeds or (None,)
    variants = []
    for v in _wanted(config, chosen, only, path):
        origin = f"experiment {path}, variant {v.label!r}"
        changes = {**config.set, **(chosen.set if chosen else {}), **v.set, **v.budget.get(budget or "", {})}
        for seed in seeds:
            own = {"seed": seed} if seed is not None else {}
            table = varied(base, {**changes, **own}, origin=origin)
            variants.append(_variant(v, table, config.sections, several=len(seeds) > 1, origin=origin))
    folder, uses = Counter(v.folder for v in variants).most_common(1)[0]
    if uses > 1:
        raise ConfigError(
            f"experiment {path}: {uses} variants have the folder {folder}; labels must differ in letters or digits"
        )
    return Experiment(
        path.stem,
        config.question,
        config.about.strip(),
        budget,
        chosen.note if chosen else "",
        chosen.rounds if chosen else config.rounds,
        config.eight,
        config.order,
        config.score,
        config.shown,
        tuple(variants),
    )


def _budget(config: ExperimentConfig, name: str | None, path: Path) -> BudgetConfig | None:
    for v in config.variant:
        for narrowed in v.budget:
            if narrowed not in config.budget:
                raise ConfigError(f"experiment {path}, variant {v.label!r}: there is no budget {narrowed!r}")
    if name is None:
        return None
    if name not in config.budget:
        known = ", ".join(config.budget) or "none, so leave --budget out"
        raise ConfigError(f"budget is {name!r}; experiment {path} has {known}")
    return config.budget[name]


def _wanted(
    config: ExperimentConfig, chosen: BudgetConfig | None, only: Sequence[str], path: Path
) -> list[VariantConfig]:
    labels = [v.label for v in config.variant]
    affordable = chosen.variants if chosen and chosen.variants is not None else labels
    for label in (*affordable, *only, *config.order):
        if label not in labels:
            raise ConfigError(f"experiment {path} has no variant {label!r}; it has {labels}")
    for label in only:
        if label not in affordable:
            raise ConfigError(f"variant {label!r} is not in this budget of experiment {path}; it has {affordable}")
    return [v for v in config.variant if v.label in (only or affordable)]


def _variant(
    v: VariantConfig, table: dict[str, Any], sections: tuple[int, int] | None, *, several: bool, origin: str
) -> Variant:
    if "network" in table:
        return Variant(v.label, parse_classifier(table, origin=origin), (), v.published, several)
    parsed = parse_table(table, origin=origin)
    return Variant(v.label, parsed, _scored(parsed, sections, origin=origin), v.published, several)


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
