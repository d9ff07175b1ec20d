"""The first two laws, measured on voxels of the user's choice: no seams, and no preferred direction."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emboundary.model.description import ModelDescription, Precision
from emboundary.model.geometry import Box, Footprint, Readable, round_up
from emboundary.model.groups import D4, act
from emboundary.service.engine import Engine
from emboundary.service.preparing.intensity import Intensity
from emboundary.service.run.inference import predict_array, predict_box

# What the laws allow in float32, in probability.
TOLERANCE = 1e-5


def tolerance(description: ModelDescription, precision: Precision) -> float:
    """How far two maps that the laws call equal may be apart, in probability.

    In another precision than float32 each may be off by what the description states, in opposite directions.
    """
    return TOLERANCE if precision == "float32" else max(TOLERANCE, 2 * description.precisions[precision])


def seam_error(engine: Engine, volume: Readable, box: Box, intensity: Intensity, *, tta: bool = False) -> float:
    """Largest difference between a box computed in one pass and the same box computed in pieces (law 1).

    Args:
        engine: the network.
        volume: array-like (z, y, x).
        box: (z, y, x) inside the volume.
        intensity: statistics of the whole volume.
        tta: mean over the 8 rotations and flips.
    """
    whole = predict_box(engine, volume, box, intensity, tta=tta)
    return max(
        _difference(predict_box(engine, volume, piece, intensity, tta=tta), whole[piece.relative_to(box.start).slices])
        for piece in pieces(box, engine.footprint)
    )


def pieces(box: Box, footprint: Footprint) -> Iterator[Box]:
    """Up to nine unequal parts of a box.

    Along each axis one cut lies where a stride begins: not one pixel more than the halo is read beyond it, so that a
    halo that is too small shows.  The other lies elsewhere, so that read boxes have to be aligned.
    """
    (top, bottom), *sides = zip(box.start, box.stop, strict=True)
    ys, xs = (_cut(a, b, stride) for (a, b), stride in zip(sides, footprint.stride[1:], strict=True))
    for (y0, y1), (x0, x1) in product(pairwise(ys), pairwise(xs)):
        yield Box((top, y0, x0), (bottom, y1, x1))


def _cut(start: int, stop: int, stride: int) -> list[int]:
    aligned = round_up(start + (stop - start) * 2 // 7, stride)
    between = start + (stop - start) * 5 // 7
    between += between % stride == 0
    return sorted({start, stop, *(cut for cut in (aligned, between) if start < cut < stop)})


def turnable(values: NDArray[Any], footprint: Footprint, side: int) -> NDArray[Any] | None:
    """The first part (z, y, x) of a stack, at most ``side`` long, whose sides are multiples of the stride.

    None where the stack is smaller than the stride: law 2 says nothing about it.
    """
    multiple = math.lcm(*footprint.stride[1:])
    y, x = (min(extent, max(side, multiple)) // multiple * multiple for extent in values.shape[1:])
    return values[:, :y, :x] if y and x else None


def symmetry_error(engine: Engine, values: NDArray[Any], intensity: Intensity, *, tta: bool = False) -> float:
    """Largest ``|predict(g x) - g predict(x)|`` over the 8 rotations and flips g (law 2).

    Args:
        engine: the network.
        values: a stack x of sections (z, y, x) of which each side is a multiple of both strides.
        intensity: statistics of the whole volume.
        tta: mean over the 8 rotations and flips.
    """
    tile = max(values.shape[1:])
    straight = predict_array(engine, values, intensity, tile=tile, tta=tta)
    return max(
        _difference(predict_array(engine, act(g, values), intensity, tile=tile, tta=tta), act(g, straight))
        for g in D4.elements[1:]
    )


def _difference(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(np.abs(a - b).max())
