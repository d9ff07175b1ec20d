"""How pictures are drawn: without a display, in colours that everyone can tell apart; and the picture of a training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Distinct in colour-blind vision and in grey print (Okabe and Ito 2008).
GREY, ORANGE, VERMILLION, PURPLE, BLUE, GREEN = "#777777", "#E69F00", "#D55E00", "#CC79A7", "#0072B2", "#009E73"


def loss_curve(path: Path, losses: list[float], *, title: str, window: int = 50) -> None:
    """Draw the loss of every step and its running mean over ``window`` steps."""
    figure = new_figure(7.0, 3.6)
    axes = figure.add_subplot()
    axes.plot(np.arange(1, len(losses) + 1), losses, color="#cccccc", linewidth=0.6, label="each step")
    if len(losses) >= window:
        mean = np.convolve(losses, np.full(window, 1 / window), mode="valid")
        axes.plot(np.arange(window, len(losses) + 1), mean, color=BLUE, label=f"mean of {window} steps")
    axes.set(xlabel="step", ylabel="loss", title=title, ylim=(0, float(np.quantile(losses, 0.99)) * 1.2))
    axes.legend(frameon=False)
    save_figure(figure, path)


def new_figure(width: float, height: float) -> Figure:
    """An empty picture, in inches; 110 pixels each."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG, whatever the suffix: without date and version inside, so that the same data give the same bytes."""
    figure.savefig(path, dpi=110, format="png", metadata={"Software": None})
