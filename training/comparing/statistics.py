"""Means and paired differences over seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev

from emboundary.training.comparing.records import MapScores, Passes, Results, SeriesRecord


@dataclass(frozen=True)
class Metric:
    """One score: its name, how many digits it is shown with, and whether more of it is better."""

    title: str
    digits: int
    of: Callable[[MapScores], float]
    more_is_better: bool = True


AUC = Metric("ROC AUC", 5, lambda m: m.roc_auc)
AP = Metric("average precision", 4, lambda m: m.average_precision)
F1 = Metric("best F1", 4, lambda m: m.best_f1)
V_RAND = Metric("V_rand", 4, lambda m: m.v_rand.f)
V_INFO = Metric("V_info", 4, lambda m: m.v_info.f)
CROSS_ENTROPY = Metric("cross entropy", 4, lambda m: m.cross_entropy, more_is_better=False)

RANKING = (AUC, AP, F1, V_RAND, V_INFO)
# Those that one pass is to be judged by.
JUDGED = (AUC, AP, V_RAND)


@dataclass(frozen=True)
class Entry:
    """A model with its passes, as a row of a table."""

    model: str
    passes: Passes

    @property
    def label(self) -> str:
        """For people."""
        return f"{self.model}, 1 pass" if self.passes == 1 else f"{self.model} + 8x"


@dataclass(frozen=True)
class Summary:
    """Mean over the seeds.

    Attributes:
        deviation: sample standard deviation; None with one seed.
    """

    mean: float
    deviation: float | None
    seeds: int


def summary(values: Sequence[float]) -> Summary | None:
    """Mean and sample standard deviation of one value a seed; None of none."""
    if not values:
        return None
    return Summary(fmean(values), stdev(values) if len(values) > 1 else None, len(values))


def entries(results: Results, series: str) -> tuple[Entry, ...]:
    """What was scored in a series: one pass of each model, and behind a model its 8."""
    models = next(s.models for s in results.series if s.key == series)
    there = {(r.model, m.passes) for r in results.runs if r.series == series for m in r.scores.maps}
    passes: tuple[Passes, Passes] = (1, 8)
    return tuple(Entry(model, p) for model in models for p in passes if (model, p) in there)


def by_seed(results: Results, series: str, entry: Entry, metric: Metric, volume: str | None) -> dict[int, float]:
    """A score of each seed on a volume; None: its mean over the series' volumes, where all of them are scored."""
    volumes = next(tuple(s.score) for s in results.series if s.key == series)
    found = {}
    for run in results.runs:
        if (run.series, run.model) != (series, entry.model):
            continue
        scored = {m.volume: metric.of(m) for m in run.scores.maps if m.passes == entry.passes}
        wanted = volumes if volume is None else (volume,)
        if all(name in scored for name in wanted):
            found[run.seed] = fmean(scored[name] for name in wanted)
    return found


def score(results: Results, series: str, entry: Entry, metric: Metric, volume: str | None) -> Summary | None:
    """The summary of ``by_seed``."""
    return summary(list(by_seed(results, series, entry, metric, volume).values()))


def difference(
    results: Results, series: str, one: Entry, other: Entry, metric: Metric, volume: str | None
) -> Summary | None:
    """``one - other``, seed by seed where both are there; positive where ``one`` is better."""
    first, second = (by_seed(results, series, entry, metric, volume) for entry in (one, other))
    sign = 1 if metric.more_is_better else -1
    return summary([sign * (first[seed] - second[seed]) for seed in first if seed in second])


def joined(results: Results) -> Results:
    """The same records, with the runs of each series that joins another counted to that one."""
    home = {series.key: series.joins or series.key for series in results.series}
    whole = []
    for series in results.series:
        if series.joins is None:
            group = [other for other in results.series if home[other.key] == series.key]
            models = tuple(dict.fromkeys(model for other in group for model in other.models))
            seeds = tuple(dict.fromkeys(seed for other in group for seed in other.seeds))
            whole.append(series.model_copy(update={"models": models, "seeds": seeds}))
    runs = tuple(run.model_copy(update={"series": home[run.series]}) for run in results.runs)
    return results.model_copy(update={"series": tuple(whole), "runs": runs})


def is_transfer(series: SeriesRecord) -> bool:
    """Whether a series is scored on volumes alone that it was not trained on."""
    return not set(series.train) & set(series.score)


def training_sections(series: SeriesRecord) -> int:
    """How many sections a series is trained on."""
    return sum(stop - first for first, stop in series.train.values())


def relative(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """Median over the rounds of the ratio within each."""
    return median(a / b for a, b in zip(numerators, denominators, strict=True))
