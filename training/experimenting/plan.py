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
from typing import Annotated, Any

from pydantic import Field

from emboundary.training.classifying.config import ClassifierConfig, parse_classifier
from emboundary.training.config import DataConfig, Sections, TrainConfig, parse_table, refuse_seen
from emboundary.training.strict import ConfigError, Strict, Value, read_based, read_table, validated, varied

Seeds = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(strict=False, min_length=1)]

EXPERIMENTS = Path(__file__).parents[1] / "experiments"


class VariantConfig(Strict):
    """What one variant changes: dotted keys of the base configuration.

    Attributes:
        budget: what it changes under a budget, behind ``set``: narrower networks, say.
        published: figures of the paper for it, by the names of the scores that they stand beside.
    """

    label: str
    set: dict[str, Value]
    budget: Annotated[dict[str, dict[str, Value]], Field(default_factory=dict)]
    published: Annotated[dict[str, float], Field(default_factory=dict)]


class BudgetConfig(Strict):
    """What a budget changes, before the variants' own changes.

    Attributes:
        note: what it is, in one line of the page.
        seeds: in place of the experiment's.
        variants: labels of those that it can afford; None: all.
    """

    note: str
    set: Annotated[dict[str, Value], Field(default_factory=dict)]
    seeds: Seeds | None = None
    variants: Annotated[tuple[str, ...] | None, Field(strict=False)] = None


class ExperimentConfig(Strict):
    """An experiment's file; ``set`` applies to every variant before the budget's and the variant's own.

    Attributes:
        about: what the page says below the question, in Markdown.
        sections: of the first volume, scored on; None: every volume's validation sections.
        eight: whether segmenters that are not exact are scored with 8 passes too, which takes its time.
        seeds: each variant is trained with each of them; None: with the base's alone.
        order: labels of variants in the published order, the best first; the page says whether it came out.
        score: by which they are ordered and drawn; the smaller is the better if it is an error or a loss.
    """

    question: str
    about: str = ""
    base: str
    sections: Sections | None = None
    eight: bool = True
    seeds: Seeds | None = None
    order: Annotated[tuple[str, ...], Field(strict=False)] = ()
    score: str | None = None
    set: Annotated[dict[str, Value], Field(default_factory=dict)]
    budget: Annotated[dict[str, BudgetConfig], Field(default_factory=dict)]
    variant: Annotated[tuple[VariantConfig, ...], Field(strict=False, min_length=1)]


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
        eight, order, score, about: see ``ExperimentConfig``.
    """

    name: str
    question: str
    about: str
    budget: str | None
    note: str
    eight: bool
    order: tuple[str, ...]
    score: str | None
    variants: tuple[Variant, ...]


def find_experiment(name: str) -> Path:
    """The file of an experiment: a path, or the name of one that comes with the package.

    Raises:
        ConfigError: no such file and no such name.
    """
    path, bundled = Path(name), EXPERIMENTS / f"{name}.toml"
    if path.suffix == ".toml" or path.exists():
        return path
    if bundled.exists():
        return bundled
    known = ", ".join(sorted(file.stem for file in EXPERIMENTS.glob("*.toml")))
    raise ConfigError(f"experiment {name!r} does not exist; give the path of a TOML file, or one of: {known}")


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
    config = validated(ExperimentConfig, read_table(path), origin=f"experiment {path}")
    chosen = _budget(config, budget, path)
    base = read_based(path.parent / config.base)
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
        config.eight,
        config.order,
        config.score,
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
