"""Pictures of the records: gains, curves, losses, costs, and what few sections do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from emboundary.training.comparing.records import LossCurve, MapScores, Results, SeriesRecord, Timing
from emboundary.training.comparing.statistics import (
    AP,
    AUC,
    JUDGED,
    V_INFO,
    V_RAND,
    Entry,
    Metric,
    Summary,
    by_seed,
    entries,
    relative,
    summary,
    training_sections,
)
from emboundary.training.comparing.verdicts import D4, PAPER, PLAIN, TURNED
from emboundary.training.figures import BLUE, GREEN, GREY, ORANGE, PURPLE, VERMILLION, new_figure, save_figure


@dataclass(frozen=True)
class Look:
    """How an entry is drawn: colour, marker and line differ, so that one of them is enough."""

    colour: str
    marker: str
    line: str


_LOOKS = {
    D4: Look(GREEN, "o", "-"),
    PLAIN: Look(GREY, "s", ":"),
    TURNED: Look(VERMILLION, "D", "--"),
    PAPER: Look(BLUE, "^", "-."),
}
_OTHERS = (Look(ORANGE, "v", "-"), Look(PURPLE, "P", "--"))


def look_of(entry: Entry) -> Look:
    """The known ones always look the same; any other gets a look by its name."""
    return _LOOKS.get(entry) or _OTHERS[sum(entry.label.encode()) % len(_OTHERS)]


def gains(path: Path, results: Results, series: SeriesRecord) -> None:
    """Every entry's scores minus those of one pass of plain with the same seed: dots are seeds, bars means."""
    there = [entry for entry in entries(results, series.key) if entry != PLAIN]
    figure = new_figure(11.0, 3.6)
    metrics = (AUC, AP, V_RAND, V_INFO)
    volumes: list[str | None] = [*series.score, *([None] if len(series.score) > 1 else [])]
    for axes, metric in zip(figure.subplots(1, len(metrics)), metrics, strict=True):
        axes.axhline(0, color=GREY, linewidth=1.2)
        for i, entry in enumerate(there):
            look, shift = look_of(entry), (i - (len(there) - 1) / 2) * 0.22
            for x, volume in enumerate(volumes):
                base, own = (by_seed(results, series.key, e, metric, volume) for e in (PLAIN, entry))
                differ = [own[seed] - base[seed] for seed in own if seed in base]
                label = entry.label if x == 0 else None
                places = np.full(len(differ), x + shift)
                axes.plot(places, differ, look.marker, color=look.colour, markersize=4.5, alpha=0.75, label=label)
                if len(differ) > 1:
                    axes.hlines(fmean(differ), x + shift - 0.1, x + shift + 0.1, color=look.colour, linewidth=2)
        axes.set_title(metric.title, fontsize=10)
        names = ["mean" if volume is None else volume for volume in volumes]
        axes.set_xticks(range(len(names)), names, fontsize=8, rotation=20)
        axes.tick_params(axis="y", labelsize=8)
        axes.grid(axis="y", alpha=0.25)
        axes.margins(x=0.12, y=0.12)
    figure.axes[0].set_ylabel("gain on one pass of plain", fontsize=9)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    save_figure(figure, path)


def curves(path: Path, results: Results, series: SeriesRecord) -> None:
    """ROC above and precision-recall below, one column a volume, of the first seed; the interesting corners."""
    seed = series.seeds[0]
    figure = new_figure(11.0, 7.2)
    panels = figure.subplots(2, len(series.score), squeeze=False)
    for (upper, lower), volume in zip(panels.T, series.score, strict=True):
        least_roc, least_precision = 0.95, 0.95  # or less
        for entry, scored in _maps(results, series, seed, volume):
            look, curve = look_of(entry), scored.curve
            style = {"color": look.colour, "linestyle": look.line, "linewidth": 1.4}
            fpr, recall, precision = (
                np.array(values) for values in (curve.false_positive_rate, curve.recall, curve.precision)
            )
            upper.plot(fpr, recall, label=f"{entry.label}  {scored.roc_auc:.4f}", **style)
            lower.plot(recall, precision, label=f"{entry.label}  {scored.average_precision:.4f}", **style)
            least_roc = min(least_roc, float(np.interp(0.02, fpr, recall)))
            least_precision = min(least_precision, float(np.interp(0.97, recall, precision)))
        upper.set(xlim=(0, 0.3), ylim=(least_roc, 1), title=f"{volume}: ROC (AUC)")
        upper.set(xlabel="false positive rate", ylabel="true positive rate")
        lower.set(xlim=(0.4, 1), ylim=(least_precision, 1.005), title=f"{volume}: precision-recall (AP)")
        lower.set(xlabel="recall", ylabel="precision")
        for axes, corner in ((upper, "lower right"), (lower, "lower left")):
            axes.grid(alpha=0.25)
            axes.title.set_fontsize(10)
            axes.legend(loc=corner, fontsize=8, frameon=False)
    save_figure(figure, path)


def losses(path: Path, results: Results, series: SeriesRecord) -> None:
    """The training loss of every model against the steps, and the loss on held-out sections at the end."""
    figure = new_figure(11.0, 4.2)
    left, right = figure.subplots(1, 2, width_ratios=(2.2, 1))
    highest = 0.0
    for model in series.models:
        found = [r.loss for r in results.runs if (r.series, r.model) == (series.key, model)]
        if not found:
            continue
        look, (steps, values) = look_of(Entry(model, 1)), _smooth(found)
        count = f"{len(found)} seeds" if len(found) > 1 else "1 seed"
        left.plot(steps, values.mean(axis=0), look.line, color=look.colour, linewidth=1.6, label=f"{model} ({count})")
        left.fill_between(steps, values.min(axis=0), values.max(axis=0), color=look.colour, alpha=0.15, linewidth=0)
        highest = max(highest, float(np.quantile(values, 0.97)))
        ends = [
            (x, m.cross_entropy)
            for r in results.runs
            if (r.series, r.model) == (series.key, model)
            for x, volume in enumerate(series.score)
            for m in r.scores.maps
            if (m.volume, m.passes) == (volume, 1)
        ]
        shift = (series.models.index(model) - (len(series.models) - 1) / 2) * 0.2
        right.plot([x + shift for x, _ in ends], [y for _, y in ends], look.marker, color=look.colour, alpha=0.75)
    left.set(xlabel="step", ylabel="training loss", xlim=(0, None), ylim=(0, highest * 1.1 or 1))
    left.set_title("training: mean of the seeds, band from the lowest to the highest", fontsize=10)
    left.legend(frameon=False)
    right.set_xticks(range(len(series.score)), list(series.score))
    right.set_title("held-out sections, at the end (dots: seeds)", fontsize=10)
    right.set(ylabel="cross entropy (nats per pixel)", ylim=(0, None))
    right.margins(x=0.2)
    for axes in (left, right):
        axes.grid(alpha=0.25)
    save_figure(figure, path)


def costs(path: Path, results: Results, series: SeriesRecord, timing: Timing) -> None:
    """Average precision, mean over the volumes, against time and against floating-point operations."""
    figure = new_figure(11.0, 4.0)
    left, right = figure.subplots(1, 2, sharey=True)
    rows = {Entry(row.model, row.passes): row for row in timing.rows}
    base = rows.get(PLAIN) or timing.rows[0]
    for entry, row in rows.items():
        value = summary(list(by_seed(results, series.key, entry, AP, None).values()))
        if value is None:
            continue
        for axes, cost in ((left, relative(row.seconds, base.seconds)), (right, row.flops_per_pixel / 1e3)):
            look = look_of(entry)
            axes.errorbar(
                cost, value.mean, yerr=value.deviation, fmt=look.marker, color=look.colour, markersize=8, capsize=4,
                label=entry.label,
            )  # fmt: skip
    left.set(xlabel=f"time, {base.model} at {base.passes} pass = 1", ylabel="average precision, mean of volumes")
    right.set(xlabel="kFLOP per pixel")
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.grid(alpha=0.25)
        axes.margins(0.15)
    left.legend(frameon=False, loc="lower right")
    save_figure(figure, path)


def sizes(path: Path, results: Results) -> None:
    """Scores against the number of training sections."""
    limited = sorted((series for series in results.series if series.limited), key=training_sections)
    figure = new_figure(11.0, 3.9)
    counts = [training_sections(series) for series in limited]
    for axes, metric in zip(figure.subplots(1, len(JUDGED)), JUDGED, strict=True):
        there = dict.fromkeys(entry for series in limited for entry in entries(results, series.key))
        for entry in there:
            _size_line(axes, results, limited, entry, metric)
        axes.set_xscale("log", base=2)
        axes.set_xticks(counts, [str(count) for count in counts])
        axes.minorticks_off()
        axes.set(xlabel="training sections", title=metric.title)
        axes.grid(alpha=0.25)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    save_figure(figure, path)


def _size_line(axes: Axes, results: Results, limited: list[SeriesRecord], entry: Entry, metric: Metric) -> None:
    found = [(training_sections(s), _mean(results, s, entry, metric)) for s in limited]
    points = [(count, value) for count, value in found if value is not None]
    look = look_of(entry)
    axes.errorbar(
        [count for count, _ in points],
        [value.mean for _, value in points],
        yerr=[value.deviation or 0.0 for _, value in points],
        fmt=look.marker + look.line,
        color=look.colour,
        capsize=3,
        label=entry.label,
    )


def _mean(results: Results, series: SeriesRecord, entry: Entry, metric: Metric) -> Summary | None:
    return summary(list(by_seed(results, series.key, entry, metric, None).values()))


def _maps(results: Results, series: SeriesRecord, seed: int, volume: str) -> list[tuple[Entry, MapScores]]:
    return [
        (Entry(r.model, m.passes), m)
        for r in results.runs
        if (r.series, r.seed) == (series.key, seed)
        for m in r.scores.maps
        if m.volume == volume
    ]


def _smooth(found: list[LossCurve], window: int = 5) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Steps (n) and running means (seeds, n) of curves that share their steps."""
    values = np.array([curve.losses for curve in found])
    width = min(window, values.shape[1])
    kernel = np.full(width, 1 / width)
    smooth = np.array([np.convolve(row, kernel, mode="valid") for row in values])
    return np.array(found[0].steps)[width - 1 :], smooth
