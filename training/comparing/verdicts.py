"""What the study was to show, and whether it does: each verdict is computed from the records."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from emboundary.training.comparing.records import Results, SeriesRecord
from emboundary.training.comparing.statistics import (
    AP,
    JUDGED,
    Entry,
    Metric,
    Summary,
    difference,
    joined,
    relative,
    training_sections,
)

D4, PLAIN, TURNED, PAPER = Entry("d4", 1), Entry("plain", 1), Entry("plain", 8), Entry("paper", 1)
MOST_TIME = 1.05

Outcome = Literal["holds", "does not hold", "holds in part", "not measured"]


@dataclass(frozen=True)
class Verdict:
    """A claim and what became of it.

    Attributes:
        measured: the figures behind the outcome.
    """

    claim: str
    outcome: Outcome
    measured: str


@dataclass(frozen=True)
class Cell:
    """One comparison of ``d4`` at one pass with ``plain`` + 8x; volume None = mean over the volumes."""

    volume: str | None
    metric: Metric
    difference: Summary


def verdicts(results: Results) -> tuple[Verdict, ...]:
    """All that was to be shown, in order."""
    results = joined(results)
    first, *others = results.series
    published = [s for s in results.series if s is first or {PAPER.model, PLAIN.model} <= set(s.models)]
    return (
        _as_good_as_eight(results, first),
        _takes_the_time_of_one(results),
        *(verdict(results, s) for s in published for verdict in (_paper_beats_plain, _paper_is_near_eight)),
        *(_as_good_as_eight(results, series) for series in others if not series.limited),
        *_pays_most_where_data_are_scarce(results),
    )


def cells(results: Results, series: SeriesRecord) -> tuple[Cell, ...]:
    """``d4`` at one pass minus ``plain`` + 8x on each volume, and on their mean if there are several."""
    volumes: tuple[str | None, ...] = (*series.score, *([None] if len(series.score) > 1 else []))
    found = (
        (volume, metric, difference(results, series.key, D4, TURNED, metric, volume))
        for volume in volumes
        for metric in JUDGED
    )
    return tuple(Cell(volume, metric, value) for volume, metric, value in found if value is not None)


def _as_good_as_eight(results: Results, series: SeriesRecord) -> Verdict:
    where = "on every volume and on their mean" if len(series.score) > 1 else f"on {next(iter(series.score))}"
    claim = f"{series.title}: one pass of d4 is at least as good as plain + 8x, {where}, in AUC, AP and V_rand"
    compared = cells(results, series)
    if not compared:
        return Verdict(claim, "not measured", "d4 and plain with the same seed are not both finished")
    short = [cell for cell in compared if cell.difference.mean < 0]
    kept = len(compared) - len(short)
    told = f"{kept} of {len(compared)} comparisons; {seeds(compared[0].difference)}"
    if short:
        told += "; short in " + ", ".join(
            f"{cell.metric.title} {_on(cell.volume)} by {shown(-cell.difference.mean, cell.metric)}" for cell in short
        )
    return Verdict(claim, outcome(kept, len(compared)), told)


def _takes_the_time_of_one(results: Results) -> Verdict:
    claim = f"One pass of d4 takes at most {MOST_TIME} times the time of one pass of plain"
    rows = {} if results.timing is None else {(row.model, row.passes): row for row in results.timing.rows}
    d4, plain = rows.get((D4.model, 1)), rows.get((PLAIN.model, 1))
    if results.timing is None or d4 is None or plain is None:
        return Verdict(claim, "not measured", "d4 and plain are not both finished")
    ratio = relative(d4.seconds, plain.seconds)
    each = [a / b for a, b in zip(d4.seconds, plain.seconds, strict=True)]
    told = f"{ratio:.3f} times, the median of {len(each)} rounds ({min(each):.3f} to {max(each):.3f}), "
    told += f"on {results.timing.environment.device}"
    return Verdict(claim, "holds" if ratio <= MOST_TIME else "does not hold", told)


def _paper_beats_plain(results: Results, series: SeriesRecord) -> Verdict:
    claim = f"{series.title}: as published, one pass of paper is better than one of plain (mean of volumes, AUC and AP)"
    found = [(m, difference(results, series.key, PAPER, PLAIN, m, None)) for m in JUDGED[:2]]
    gains = [(metric, gain) for metric, gain in found if gain is not None]
    if not gains:
        return Verdict(claim, "not measured", "paper and plain with the same seed are not both finished")
    told = "; ".join(f"{metric.title} {signed(gain, metric)}" for metric, gain in gains)
    better = sum(gain.mean > 0 for _, gain in gains)
    return Verdict(claim, outcome(better, len(gains)), f"{told}; {seeds(gains[0][1])}")


def _paper_is_near_eight(results: Results, series: SeriesRecord) -> Verdict:
    claim = f"{series.title}: as published, paper is nearer to plain + 8x than to plain (mean of volumes, AUC and AP)"
    told, near = [], 0
    for metric in JUDGED[:2]:
        to_eight = difference(results, series.key, PAPER, TURNED, metric, None)
        to_one = difference(results, series.key, PAPER, PLAIN, metric, None)
        if to_eight is None or to_one is None:
            return Verdict(claim, "not measured", "paper and plain with the same seed are not both finished")
        near += abs(to_eight.mean) < abs(to_one.mean)
        told.append(f"{metric.title} {signed(to_eight, metric)} from plain + 8x, {signed(to_one, metric)} from plain")
    return Verdict(claim, outcome(near, 2), "; ".join(told))


def _pays_most_where_data_are_scarce(results: Results) -> Iterator[Verdict]:
    limited = sorted((series for series in results.series if series.limited), key=training_sections)
    if len(limited) < 2:
        return
    claim = (
        "Equivariance pays most where data are scarce: d4 gains more AP on plain with the fewest training sections "
        "than with the most"
    )
    gains = [(training_sections(s), difference(results, s.key, D4, PLAIN, AP, None)) for s in limited]
    there = [(count, gain) for count, gain in gains if gain is not None]
    if gains[0][1] is None or gains[-1][1] is None:
        yield Verdict(claim, "not measured", "d4 and plain are not both finished with the fewest and the most sections")
        return
    told = ", ".join(f"{signed(gain, AP)} with {count}" for count, gain in there)
    holds = gains[0][1].mean > gains[-1][1].mean
    yield Verdict(claim, "holds" if holds else "does not hold", f"{told}; {seeds(there[0][1])}")


def outcome(kept: int, of: int) -> Outcome:
    """What becomes of a claim that some of its comparisons keep."""
    if kept == of:
        return "holds"
    return "holds in part" if kept else "does not hold"


def _on(volume: str | None) -> str:
    return "on the mean" if volume is None else f"on {volume}"


def shown(value: float, metric: Metric) -> str:
    """A value with the metric's digits."""
    return f"{value:.{metric.digits}f}"


def signed(value: Summary, metric: Metric) -> str:
    """A difference with its sign, and the deviation if there is one."""
    told = f"{value.mean:+.{metric.digits}f}"
    return told if value.deviation is None else f"{told} ± {shown(value.deviation, metric)}"


def seeds(value: Summary) -> str:
    """How many seeds stand behind a value."""
    return "one seed, so by how much seeds differ is not known" if value.seeds == 1 else f"{value.seeds} seeds"
