"""The page's tables, in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from emboundary.training.comparing.records import Results, SeriesRecord, Timing
from emboundary.training.comparing.statistics import (
    JUDGED,
    RANKING,
    Entry,
    Metric,
    by_seed,
    difference,
    entries,
    relative,
    summary,
    training_sections,
)
from emboundary.training.comparing.verdicts import D4, PLAIN, TURNED, cells, shown, signed

_MEAN = "mean"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def ranking_table(results: Results, series: SeriesRecord) -> str:
    """Scores of pixels and of thinned maps: volumes, then their mean; entries below each other."""
    lines = []
    for volume in _volumes(series):
        for entry in entries(results, series.key):
            scores = [_cell(results, series, entry, metric, volume) for metric in RANKING]
            seeds = len(by_seed(results, series.key, entry, RANKING[0], volume))
            lines.append([volume or _MEAN, entry.label, str(seeds), *scores])
    return table(["scored on", "model", "seeds", *(metric.title for metric in RANKING)], lines)


def mean_table(results: Results, series: SeriesRecord) -> str:
    """The means over the volumes, with the cost of each entry."""
    rows = {} if results.timing is None else {Entry(r.model, r.passes): r for r in results.timing.rows}
    base = rows.get(PLAIN)
    lines = []
    for entry in entries(results, series.key):
        row = rows.get(entry)
        time = "" if row is None or base is None else f"{relative(row.seconds, base.seconds):.2f}"
        scores = [_cell(results, series, entry, metric, None) for metric in JUDGED]
        lines.append([entry.label, *scores, time])
    return table(["model", *(metric.title for metric in JUDGED), "time, one pass of plain = 1"], lines)


def differences_table(results: Results, series: SeriesRecord) -> str:
    """``d4`` at one pass minus ``plain`` + 8x; what falls short in bold."""
    found = {(cell.volume, cell.metric): cell.difference for cell in cells(results, series)}
    lines = []
    for volume in _volumes(series):
        line = [volume or _MEAN]
        for metric in JUDGED:
            value = found.get((volume, metric))
            text = "not measured" if value is None else signed(value, metric)
            line.append(f"**{text}**" if value is not None and value.mean < 0 else text)
        lines.append(line)
    return table(["scored on", *(metric.title for metric in JUDGED)], lines)


def sizes_table(results: Results) -> str:
    """Scores against the number of training sections, and what ``d4`` gains."""
    lines = []
    for series in sorted((s for s in results.series if s.limited), key=training_sections):
        for entry in entries(results, series.key):
            scores = [_cell(results, series, entry, metric, None) for metric in JUDGED]
            lines.append([str(training_sections(series)), entry.label, *scores])
        for other in (PLAIN, TURNED):
            gain = [(m, difference(results, series.key, D4, other, m, None)) for m in JUDGED]
            told = [signed(value, metric) for metric, value in gain if value is not None]
            if told:
                lines.append([str(training_sections(series)), f"*d4, 1 pass - {other.label}*", *told])
    return table(["training sections", "model", *(metric.title for metric in JUDGED)], lines)


def costs_table(timing: Timing) -> str:
    """Parameters, operations, seconds and the violation of the symmetry."""
    base = next((row for row in timing.rows if Entry(row.model, row.passes) == PLAIN), timing.rows[0])
    lines = []
    for row in timing.rows:
        ratios = [a / b for a, b in zip(row.seconds, base.seconds, strict=True)]
        lines.append(
            [
                Entry(row.model, row.passes).label,
                f"{row.parameters:,}",
                f"{row.flops_per_pixel / 1e3:,.1f}",
                f"{min(row.seconds):.2f}",
                f"{relative(row.seconds, base.seconds):.3f} ({min(ratios):.3f} to {max(ratios):.3f})",
                f"{row.equivariance_error:.1e}",
            ]
        )
    head = ["model", "parameters", "kFLOP per pixel", "seconds", f"relative to {base.model}", "equivariance error"]
    return table(head, lines)


def throughput_table(timing: Timing) -> str:
    """Pixels of crops that training goes through in a second."""
    lines = []
    for row in timing.rows:
        speeds = summary(row.training_pixels_per_second)
        if speeds is not None:
            spread = "" if speeds.deviation is None else f" ± {speeds.deviation / 1e3:.1f}"
            lines.append([row.model, f"{speeds.mean / 1e3:.1f}{spread}"])
    return table(["model", "thousand pixels of crops per second"], lines)


def _volumes(series: SeriesRecord) -> tuple[str | None, ...]:
    return (*series.score, *([None] if len(series.score) > 1 else []))


def _cell(results: Results, series: SeriesRecord, entry: Entry, metric: Metric, volume: str | None) -> str:
    value = summary(list(by_seed(results, series.key, entry, metric, volume).values()))
    if value is None:
        return "not measured"
    told = shown(value.mean, metric)
    return told if value.deviation is None else f"{told} ± {shown(value.deviation, metric)}"
