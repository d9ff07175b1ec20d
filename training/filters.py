"""Pictures of filters and of the copies that a layer makes of them: rows are filters, columns group elements."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from emboundary.model.conv import KernelOrbitConv2d
from emboundary.model.group_conv import GroupConv2d
from emboundary.model.lipschitz import Expandable
from emboundary.training.figures import new_figure, save_figure

# Red and blue are told apart in every colour vision that has two cones, and lightness shows the size.
_COLOURS = "RdBu_r"
_PER_ROW = 8


def orbits(conv: nn.Module) -> tuple[NDArray[np.float64], list[str]]:
    """Filters of a layer with all copies, (filters, copies, inputs, k, k), and the copies' names.

    Raises:
        TypeError: a module that is no convolution.
    """
    plain = conv.plain() if isinstance(conv, Expandable) else conv
    if not isinstance(plain, nn.Conv2d):
        raise TypeError(f"conv is a {type(conv).__name__}; only a convolution's filters can be drawn")
    if isinstance(conv, GroupConv2d):
        group = conv.filters.group
        names = [group.element_name(place) for place in range(group.order)]
    elif isinstance(conv, KernelOrbitConv2d):
        names = [f"copy {t + 1}" for t in range(conv.copies)]
    else:
        names = [""]
    with torch.no_grad():
        bank = plain.weight.double().numpy()
    return bank.reshape(-1, len(names), *bank.shape[1:]), names


def draw_filters(path: Path, conv: nn.Module, *, title: str, channel: int | None = None) -> None:
    """Draw a layer's filters on one input channel, the middle one if none is given; one symmetric scale for all.

    Filters without copies stand side by side.

    Raises:
        TypeError: a module that is no convolution.
        ValueError: an input channel that the layer does not have.
    """
    bank, names = orbits(conv)
    inputs = bank.shape[2]
    chosen = inputs // 2 if channel is None else channel
    if not 0 <= chosen < inputs:
        raise ValueError(f"channel is {chosen}; the layer has input channels 0 to {inputs - 1}")
    maps = bank[:, :, chosen]
    single = len(names) == 1
    columns = min(_PER_ROW, len(maps)) if single else len(names)
    rows = -(-len(maps) // columns) if single else len(maps)
    scale = float(np.abs(maps).max()) or 1.0
    figure = new_figure(1.05 * columns + 1.4, 1.15 * rows + 0.6)
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes in panels.flat:
        axes.set_axis_off()
    for number, copies in enumerate(maps):
        for place, entries in enumerate(copies):
            axes = panels[divmod(number, columns)] if single else panels[number, place]
            picture = axes.imshow(entries, cmap=_COLOURS, vmin=-scale, vmax=scale)
            axes.set_axis_on()
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_title(f"filter {number + 1}" if single else (names[place] if number == 0 else ""), fontsize=8)
            if not single and place == 0:
                axes.set_ylabel(f"filter {number + 1}", fontsize=8)
    figure.colorbar(picture, ax=panels, label="weight", shrink=0.8, pad=0.02)
    figure.suptitle(title, fontsize=10)
    save_figure(figure, path)
