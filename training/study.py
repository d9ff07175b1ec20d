"""A study: series of runs that answer one question, each a model trained on some volumes with some seeds.

    question = "Is one pass of d4 as good as eight of plain?"

    [models]                             # relative to the study's file
    d4 = "../configs/d4.toml"
    plain = "../configs/plain.toml"

    [[series]]
    key = "all"                          # names the runs' folder
    title = "Trained on all volumes"
    models = ["d4", "plain"]
    seeds = [0, 1, 2]
    train = ["vnc", "isbi2012"]          # volumes of the configuration
    score = ["vnc", "isbi2012"]          # volumes whose validation sections are scored
    sections = 4                         # only the first 4 training sections of each; all if not given
    set = { "optimiser.steps" = 600 }

Every run trains in its own folder and resumes there, so that a finished study is reported again for nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from emboundary.training.config import DataConfig, TrainConfig, parse_table, refuse_seen
from emboundary.training.strict import (
    ConfigError,
    PositiveInt,
    Strict,
    Value,
    read_based,
    read_table,
    validated,
    varied,
)

Names = Annotated[tuple[str, ...], Field(strict=False, min_length=1)]


class SeriesConfig(Strict):
    """Runs that differ in model and seed alone; see the module."""

    key: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    title: str
    models: Names
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(strict=False, min_length=1)]
    train: Names
    score: Names
    sections: PositiveInt | None = None
    set: Annotated[dict[str, Value], Field(default_factory=dict)]


class StudyConfig(Strict):
    """A study's file.

    Attributes:
        show: volumes of which pictures may show crops, as their terms allow; all of them if not given.
        caveats: what the figures do not show, a sentence each; they stand above all figures.
    """

    question: str
    caveats: Annotated[tuple[str, ...], Field(strict=False)] = ()
    models: dict[str, str]
    show: Annotated[tuple[str, ...] | None, Field(strict=False)] = None
    series: Annotated[tuple[SeriesConfig, ...], Field(strict=False, min_length=1)]


@dataclass(frozen=True)
class StudyRun:
    """One training of a study.

    Attributes:
        series: key of its series.
        model, seed: which model, with which seed.
        config: the complete configuration.
        scored: the volumes that it is scored on, each with its ``validation`` sections.
    """

    series: str
    model: str
    seed: int
    config: TrainConfig
    scored: tuple[DataConfig, ...]

    @property
    def folder(self) -> Path:
        """Its folder, relative to the study's."""
        return Path(self.series, f"{self.model}-{self.seed}")


@dataclass(frozen=True)
class Study:
    """A question, the series as they were given, and all their runs in order.

    Attributes:
        show: volumes of which pictures may show crops; None: all.
        caveats: what the figures do not show, a sentence each.
    """

    question: str
    series: tuple[SeriesConfig, ...]
    runs: tuple[StudyRun, ...]
    show: tuple[str, ...] | None = None
    caveats: tuple[str, ...] = ()

    def of(self, key: str) -> tuple[StudyRun, ...]:
        """The runs of one series."""
        return tuple(run for run in self.runs if run.series == key)


def load_study(path: Path) -> Study:
    """Read a study and build every run's configuration.

    Raises:
        ConfigError: an unreadable file, a key, model or volume that does not exist, a volume without validation
            sections that is to be scored, or scored sections that a run trains on.
    """
    config = validated(StudyConfig, read_table(path), origin=f"study {path}")
    tables = {name: read_based(path.parent / file) for name, file in config.models.items()}
    runs = [
        _run(series, model, seed, tables, origin=f"study {path}, series {series.key!r}, {model} with seed {seed}")
        for series in config.series
        for seed in series.seeds
        for model in series.models
    ]
    folders = [run.folder for run in runs]
    if len(set(folders)) < len(folders):
        raise ConfigError(f"study {path}: two runs have one folder; keys of series, and seeds in a series, must differ")
    return Study(config.question, config.series, tuple(runs), config.show, config.caveats)


def _run(series: SeriesConfig, model: str, seed: int, tables: dict[str, dict[str, Any]], *, origin: str) -> StudyRun:
    if model not in tables:
        raise ConfigError(f"{origin}: models are {', '.join(tables)}; give one of them, or add it to [models]")
    whole = parse_table(varied(tables[model], {**series.set, "seed": seed}, origin=origin), origin=origin)
    volumes = {volume.name: volume for volume in whole.data}
    for name in (*series.train, *series.score):
        if name not in volumes:
            raise ConfigError(f"{origin}: the volumes are {', '.join(volumes)}; {name} is none of them")
    trained = tuple(_first(volumes[name], series.sections) for name in series.train)
    config = whole.model_copy(update={"data": trained})
    scored = tuple(volumes[name] for name in series.score)
    for volume in scored:
        if volume.validation is None:
            raise ConfigError(f"{origin}: {volume.name} has no validation sections to be scored on; give it some")
        refuse_seen(config, volume, volume.validation, origin=origin)
    return StudyRun(series.key, model, seed, config, scored)


def _first(volume: DataConfig, sections: int | None) -> DataConfig:
    if sections is None:
        return volume
    first, stop = volume.sections
    return volume.model_copy(update={"sections": (first, min(stop, first + sections))})
