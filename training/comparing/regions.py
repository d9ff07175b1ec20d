"""Where the maps are worst and best: tiles of held-out sections, ranked by how far the first map is from the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from numpy.typing import NDArray

from emboundary.training.comparing.measuring import cross_entropy
from emboundary.training.crops.data import LabelledVolume
from emboundary.training.figures import BLUE, VERMILLION, new_figure, save_figure

TILE = 256
_NEARER = LinearSegmentedColormap.from_list("nearer", [BLUE, "#ffffff", VERMILLION])


@dataclass(frozen=True)
class Labelled:
    """A map as it was kept, uint8 (z, y, x), and whose it is."""

    label: str
    stored: NDArray[np.uint8]

    @property
    def probability(self) -> NDArray[np.float32]:
        """In the middle of each level, so that none is exactly 0 or 1."""
        return (self.stored.astype(np.float32) + np.float32(0.5)) / np.float32(256)


@dataclass(frozen=True)
class Tile:
    """A tile's corner (z, y, x), and the cross entropy in it."""

    corner: tuple[int, int, int]
    error: float


def ranked(target: NDArray[np.bool_], probability: NDArray[np.float32], side: int = TILE) -> list[Tile]:
    """Tiles of a grid over the sections (z, y, x), the worst first; what the grid leaves at the edges is no tile.

    Tiles of one class only, where there is nothing to tell apart, are left out.
    """
    depth, height, width = target.shape
    side = min(side, height, width)
    corners = [
        (z, y, x)
        for z in range(depth)
        for y in range(0, height - side + 1, side)
        for x in range(0, width - side + 1, side)
    ]
    tiles = [
        Tile(corner, cross_entropy(target[window(corner, side)], probability[window(corner, side)]))
        for corner in corners
        if 0 < target[window(corner, side)].mean() < 1
    ]
    return sorted(tiles, key=lambda tile: tile.error, reverse=True)


def apart(tiles: Sequence[Tile], count: int) -> list[Tile]:
    """The first ``count`` tiles at different places (y, x): the same place in the next section shows the same again."""
    chosen: dict[tuple[int, int], Tile] = {}
    for tile in tiles:
        if len(chosen) < count:
            chosen.setdefault(tile.corner[1:], tile)
    return list(chosen.values())


def window(corner: tuple[int, int, int], side: int) -> tuple[int, slice, slice]:
    """Indices of a tile in one section."""
    z, y, x = corner
    return z, slice(y, y + side), slice(x, x + side)


def regions(path: Path, volume: LabelledVolume, first: int, maps: Sequence[Labelled], *, each: int = 2) -> None:
    """Draw the worst and the best tiles: raw, truth, every map, and which of the first and last is nearer the truth.

    Args:
        path: of the picture.
        volume: held-out sections.
        first: the number of the first of them in the whole volume.
        maps: of those sections; tiles are ranked by the first one's error.
        each: how many worst, and how many best.
    """
    side = min(TILE, *volume.raw.shape[1:])
    tiles = ranked(volume.target, maps[0].probability, side)
    worst = apart(tiles, each)
    best = apart([tile for tile in reversed(tiles) if tile not in worst], each)
    rows = [*(("worst", tile) for tile in worst), *(("best", tile) for tile in best)]
    columns = 2 + len(maps) + (len(maps) > 1)
    figure = new_figure(2.05 * columns, 2.3 * len(rows) + 0.2)
    panels = figure.subplots(len(rows), columns, squeeze=False)
    for (kind, tile), row in zip(rows, panels, strict=True):
        here = window(tile.corner, side)
        z, y, x = tile.corner
        truth = volume.target[here]
        # The intensities that 98 in 100 voxels have fill the range of greys.
        low, high = np.quantile(volume.raw[here], (0.01, 0.99))
        _show(row[0], volume.raw[here], f"{kind}: section {first + z}, y {y}, x {x}", "gray", low, high)
        _show(row[1], truth, "human", "gray_r", 0, 1)
        for axes, found in zip(row[2:], maps, strict=False):
            error = cross_entropy(truth, found.probability[here])
            _show(axes, found.probability[here], f"{found.label}: {error:.3f}", "gray_r", 0, 1)
        if len(maps) > 1:
            near, far = (np.abs(truth - m.probability[here]) for m in (maps[0], maps[-1]))
            _show(row[-1], near - far, f"blue: {maps[0].label} nearer", _NEARER, -0.5, 0.5)
    save_figure(figure, path)


def _show(axes: Axes, image: NDArray[Any], title: str, colours: Any, low: float, high: float) -> None:
    axes.imshow(image, cmap=colours, vmin=low, vmax=high, interpolation="nearest")
    axes.set_title(title, fontsize=8)
    axes.set_axis_off()
