"""Pictures of training and comparison, drawn without a display."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from emboundary.training.compare import Comparison
from emboundary.training.data import LabelledVolume

# Distinct in colour-blind vision and in grey print (Okabe and Ito 2008).
_COLOURS = ("#999999", "#E69F00", "#D55E00", "#CC79A7", "#0072B2", "#009E73")
_STYLES = ("-", "-", "--", ":", "-", "-")


def loss_curve(path: Path, losses: list[float], *, title: str, window: int = 50) -> None:
    """Draw the loss of every step and its running mean over ``window`` steps."""
    figure = _figure(7.0, 3.6)
    axes = figure.add_subplot()
    axes.plot(np.arange(1, len(losses) + 1), losses, color="#cccccc", linewidth=0.6, label="each step")
    if len(losses) >= window:
        mean = np.convolve(losses, np.full(window, 1 / window), mode="valid")
        axes.plot(np.arange(window, len(losses) + 1), mean, color="#0072B2", label=f"mean of {window} steps")
    axes.set(xlabel="step", ylabel="cross entropy", title=title, ylim=(0, float(np.quantile(losses, 0.99)) * 1.2))
    axes.legend(frameon=False)
    _save(figure, path)


def score_curves(path: Path, comparison: Comparison, *, title: str) -> None:
    """Draw ROC and precision-recall curves side by side, each with its interesting corner enlarged."""
    figure = _figure(11.0, 5.0)
    roc, precision_recall = figure.subplots(1, 2)
    looks = zip(cycle(_COLOURS), cycle(_STYLES), strict=False)
    for row, curve, (colour, style) in zip(comparison.rows, comparison.curves, looks, strict=False):
        # Hundreds of thousands of thresholds draw no better than two thousand.
        some = np.unique(np.linspace(0, curve.threshold.size - 1, 2000).round().astype(int))
        look = {"color": colour, "linestyle": style, "linewidth": 1.4}
        fpr, tpr = curve.false_positive_rate[some], curve.recall[some]
        roc.plot(fpr, tpr, label=f"{row.label}  {row.scores.roc_auc:.4f}", **look)
        precision_recall.plot(
            tpr, curve.precision[some], label=f"{row.label}  {row.scores.average_precision:.4f}", **look
        )
    roc.set(xlabel="false positive rate", ylabel="true positive rate", xlim=(0, 0.3), ylim=(0.7, 1), title="ROC (AUC)")
    precision_recall.set(
        xlabel="recall", ylabel="precision", xlim=(0.5, 1), ylim=(0.5, 1), title="precision-recall (average precision)"
    )
    for axes in (roc, precision_recall):
        axes.grid(alpha=0.25)
        axes.legend(loc="lower left" if axes is precision_recall else "lower right", fontsize=8, frameon=False)
    figure.suptitle(title)
    _save(figure, path)


def maps(path: Path, comparison: Comparison, volume: LabelledVolume, *, side: int = 384) -> None:
    """Draw one section: raw image, membranes, and every contestant's map, cropped to ``side`` pixels."""
    window = (0, slice(0, side), slice(0, side))
    panels: list[tuple[str, NDArray[np.generic]]] = [
        ("raw", volume.raw[window]),
        ("membranes (human)", volume.target[window].astype(np.float32)),
        *((row.label, probability[window]) for row, probability in zip(comparison.rows, comparison.maps, strict=True)),
    ]
    columns = 4
    rows = -(-len(panels) // columns)
    figure = _figure(3.1 * columns, 3.3 * rows)
    for place, (title, image) in enumerate(panels):
        axes = figure.add_subplot(rows, columns, place + 1)
        axes.imshow(image, cmap="gray" if title == "raw" else "gray_r", interpolation="nearest")
        axes.set_title(title, fontsize=9)
        axes.set_axis_off()
    _save(figure, path)


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: Path) -> None:
    # No date and no version inside, so that the same data gives the same bytes; PNG whatever the suffix.
    figure.savefig(path, dpi=110, format="png", metadata={"Software": None})
