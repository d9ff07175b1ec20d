"""Files of experiments: what they say, where they lie, how one stands on another.

question = "Which pooling is best for digits turned by any angle?"
like = "pooling.toml"                # in the same folder: everything else is as there

[set]
"data.rotate_train" = true

[[variant]]                          # one that is there already is changed, another is added
label = "max"
published = { "test error %" = 1.5 }
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from emboundary.training.config import Sections
from emboundary.training.strict import ConfigError, Strict, Value, joined, read_stacked, read_table, validated

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
        rounds: in which segmenters are timed beside each other; 0: they are not.
    """

    note: str
    set: Annotated[dict[str, Value], Field(default_factory=dict)]
    seeds: Seeds | None = None
    variants: Annotated[tuple[str, ...] | None, Field(strict=False)] = None
    rounds: Annotated[int, Field(ge=0)] = 0


class ExperimentConfig(Strict):
    """An experiment's file; ``set`` applies to every variant before the budget's and the variant's own.

    Attributes:
        about: what the page says below the question, in Markdown.
        base: the configuration that variants change; in the file relative to it.
        sections: of the first volume, scored on; None: every volume's validation sections.
        eight: whether segmenters that are not exact are scored with 8 passes too, which takes its time.
        seeds: each variant is trained with each of them; None: with the base's alone.
        order: labels of variants in the published order, the best first; the page says whether it came out.
        score: by which they are ordered and drawn; the smaller is the better if it is an error or a loss.
        shown: scores that the page's table has; all if not given.
        rounds: in which segmenters are timed beside each other, where a budget does not say it.
    """

    question: str
    about: str = ""
    base: str
    sections: Sections | None = None
    eight: bool = True
    seeds: Seeds | None = None
    order: Annotated[tuple[str, ...], Field(strict=False)] = ()
    score: str | None = None
    shown: Annotated[tuple[str, ...], Field(strict=False)] = ()
    rounds: Annotated[int, Field(ge=0)] = 0
    set: Annotated[dict[str, Value], Field(default_factory=dict)]
    budget: Annotated[dict[str, BudgetConfig], Field(default_factory=dict)]
    variant: Annotated[tuple[VariantConfig, ...], Field(strict=False, min_length=1)]


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


def read_experiment(path: Path) -> ExperimentConfig:
    """Read an experiment's file on top of the one that its key ``like`` names, if it has one.

    Tables are joined key by key, variants by their labels; any other value takes the place of the other's.

    Raises:
        ConfigError: a missing or malformed file, or one that stands on itself.
    """
    table = read_stacked(path, "like", kind="experiment", read=_read, join=_joined)
    return validated(ExperimentConfig, table, origin=f"experiment {path}")


def _read(path: Path) -> dict[str, Any]:
    """One file, with the path of its base as it is from here."""
    table = read_table(path)
    if isinstance(table.get("base"), str):
        table["base"] = str(path.parent / table["base"])
    return table


def _joined(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    if "variant" in under and "variant" in over:
        over = {**over, "variant": _by_label(under["variant"], over["variant"])}
    return joined(under, over)


def _by_label(under: Any, over: Any) -> Any:
    """Variants of both, those of the same label joined; whatever is no list of labelled tables is left to the check."""
    try:
        found = {variant["label"]: variant for variant in under}
        for variant in over:
            found[variant["label"]] = joined(found.get(variant["label"], {}), variant)
    except (KeyError, TypeError, ValueError):
        return over
    return list(found.values())
