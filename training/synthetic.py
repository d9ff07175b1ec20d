"""A small generator of section stacks with membranes, for tests and first steps without real data.

Cells are the Voronoi regions of random points that drift from section to section; their borders are dark
lines of a few pixels on a grey, noisy ground with dark blobs inside the cells, which are not boundaries.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy import ndimage, spatial

Stack = NDArray[np.uint8]


def membranes(shape: tuple[int, int, int], *, seed: int, cell: float = 24.0) -> tuple[Stack, Stack]:
    """Make a stack and its membrane map, both uint8 (z, y, x); 255 = membrane.

    Args:
        shape: (z, y, x) in voxels.
        seed: the same seed gives the same stack.
        cell: typical distance between cell centres, in pixels.
    """
    rng = np.random.default_rng(seed)
    depth, height, width = shape
    count = max(4, round((height + 2 * cell) * (width + 2 * cell) / cell**2))
    points = rng.uniform(-cell, [height + cell, width + cell], size=(count, 2))
    grid = np.indices((height, width)).reshape(2, -1).T
    raw, target = np.empty(shape, np.uint8), np.empty(shape, np.uint8)
    for z in range(depth):
        nearest, _ = spatial.cKDTree(points).query(grid, k=2)
        gap = (nearest[:, 1] - nearest[:, 0]).reshape(height, width)
        membrane = gap < 2.5
        blobs = ndimage.gaussian_filter(rng.standard_normal((height, width)), 3.0) > 0.12
        light = 160.0 - 90.0 * ndimage.gaussian_filter(membrane.astype(float), 0.7) - 80.0 * (blobs & ~membrane)
        noise = ndimage.gaussian_filter(rng.standard_normal((height, width)), 0.6) * 18.0
        raw[z] = np.clip(light + noise, 0, 255).round()
        target[z] = membrane * np.uint8(255)
        points = points + rng.normal(0, cell / 12, size=points.shape)
    return raw, target


def write_stack(folder: Path, shape: tuple[int, int, int], *, seed: int) -> None:
    """Write ``raw.tif`` and ``membranes.tif`` (zlib, axes ZYX) into an existing folder."""
    raw, target = membranes(shape, seed=seed)
    for name, stack in (("raw.tif", raw), ("membranes.tif", target)):
        tifffile.imwrite(folder / name, stack, photometric="minisblack", compression="zlib", metadata={"axes": "ZYX"})
