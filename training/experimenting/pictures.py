"""An experiment's pictures: the score of every variant, and scores along the way."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median

from emboundary.training.experimenting.outcome import Outcome, Times
from emboundary.training.experimenting.page import is_cost, labels_of, time_head, values_of
from emboundary.training.experimenting.plan import Experiment
from emboundary.training.figures import BLUE, GREEN, GREY, ORANGE, PURPLE, VERMILLION, new_figure, save_figure
from emboundary.training.storing import storing

_COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, GREY)
_MARKS = "osD^vP*X"


def draw(loaded: Experiment, outcomes: Sequence[Outcome], times: Times, folder: Path) -> list[str]:
    """Draw what the outcomes allow; names of the files."""
    drawn = []
    if loaded.score is not None:
        drawn.append(f"{loaded.name}.png")
        with storing(folder / drawn[-1]) as partial:
            _costs(partial, loaded, outcomes, times)
    if any(len(o.curve) > 1 for o in outcomes):
        drawn.append(f"{loaded.name}-scatter.png")
        with storing(folder / drawn[-1]) as partial:
            _scatter(partial, outcomes)
    return drawn


def _costs(path: Path, loaded: Experiment, outcomes: Sequence[Outcome], times: Times) -> None:
    """One row per variant: the score of every seed, their mean, the published figure; and its time, if measured."""
    labels, score = labels_of(outcomes), loaded.score or ""
    published = {v.label: v.published.get(score) for v in loaded.variants}
    figure = new_figure(10.0 if times else 8.0, 1.3 + 0.34 * len(labels))
    grid = figure.add_gridspec(1, 2, width_ratios=(3, 1)) if times else figure.add_gridspec(1, 1)
    axes = figure.add_subplot(grid[0])
    for row, label in enumerate(labels):
        values = values_of(outcomes, label, score)
        axes.plot(values, [row] * len(values), "o", color=BLUE, alpha=0.5, markersize=5)
        axes.plot([fmean(values)], [row], "|", color=BLUE, markersize=16, markeredgewidth=2)
        claim = published[label]
        if claim is not None:
            axes.plot([claim], [row], "x", color=VERMILLION, markersize=7)
    axes.plot([], [], "o", color=BLUE, alpha=0.5, label="here, each seed")
    axes.plot([], [], "|", color=BLUE, markersize=12, markeredgewidth=2, label="mean")
    if any(claim is not None for claim in published.values()):
        axes.plot([], [], "x", color=VERMILLION, label="published")
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.locator_params(axis="x", nbins=5)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set(xlabel=f"{score} ({'lower' if is_cost(score) else 'higher'} is better)")
    if times:
        beside = figure.add_subplot(grid[1], sharey=axes)
        beside.barh(range(len(labels)), [median(times[label]) for label in labels], 0.6, color=GREY)
        beside.axvline(1, color="black", linewidth=0.8)
        beside.tick_params(labelleft=False)
        beside.set(xlabel=time_head(times))
    figure.legend(frameon=False, fontsize="small", loc="outside lower center", ncols=3)
    save_figure(figure, path)


def _scatter(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Training against test loss and accuracy, one point per evaluation (symmetric kernels, figures 1 and 2)."""
    figure = new_figure(9.0, 4.2)
    for place, (what, train, test) in enumerate(
        (("loss", "train_loss", "test_loss"), ("accuracy %", "train_error", "test_error"))
    ):
        axes = figure.add_subplot(1, 2, place + 1)
        for number, label in enumerate(labels_of(outcomes)):
            points = [(p[train], p[test]) for o in outcomes if o.variant == label for p in o.curve]
            if what.startswith("accuracy"):
                points = [(100 - x, 100 - y) for x, y in points]
            axes.plot(
                *zip(*points, strict=True),
                _MARKS[number % len(_MARKS)],
                color=_COLOURS[number % len(_COLOURS)],
                markersize=4,
                alpha=0.8,
                label=label,
            )
        axes.set(xlabel=f"training {what}", ylabel=f"test {what}")
        axes.grid(color="#dddddd", linewidth=0.6)
        if not place:
            axes.legend(frameon=False, fontsize="small")
    save_figure(figure, path)
