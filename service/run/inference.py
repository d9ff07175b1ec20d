"""From voxels to probabilities: read a box with its halo, normalise, run, crop.

Law 1 lives here: whatever the tile, the block order, the batch or the region of interest, every probability is
the one that the network gives on the whole section, reflected by the halo at its borders.  A network with context is
given the section amid its c neighbours on each side as channels; sections outside the volume are reflected by the same
rule, so that section -1 is section 1, and a volume of one section is its own neighbour throughout.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emboundary.model.geometry import Box, Readable, neighbours, read_reflected
from emboundary.model.groups import D4, act, inverse_element
from emboundary.service.engine import Answer, Engine, Part
from emboundary.service.errors import InputError
from emboundary.service.preparing.intensity import Intensity
from emboundary.service.probabilities import Dtype, to_stored
from emboundary.service.run.parts import answers, image_of
from emboundary.service.run.tiling import Tiling
from emboundary.service.volumes.finite import refuse_non_finite

Map = NDArray[np.float32]

# Sections go through the engine together up to this many pixels: enough to fill a GPU, little enough for a laptop.
BATCH_PIXELS = 1 << 20


def predict_box(engine: Engine, volume: Readable, write: Box, intensity: Intensity, *, tta: bool = False) -> Map:
    """Probability of the engine's first output on a box of a volume; shape ``write.shape``.

    Args:
        engine: the network.
        volume: array-like (z, y, x); only the box and its halo are read.
        write: the wanted box (z, y, x) in voxels, inside the volume.
        intensity: statistics of the whole volume.
        tta: test-time augmentation, the mean over the 8 rotations and flips of the padded, aligned box.

    Raises:
        InputError: an intensity by which voxel values become too large for the network.
    """
    raw = read_reflected(volume, engine.footprint.read_box(write))
    result = np.empty(write.shape, dtype=np.float32)
    for box, probability in infer(engine, raw, write, intensity, tta=tta):
        result[box.relative_to(write.start).slices] = probability
    return result


def infer(
    engine: Engine,
    raw: NDArray[Any],
    write: Box,
    intensity: Intensity,
    *,
    tta: bool = False,
    dtype: Dtype = "float32",
) -> Iterator[tuple[Box, NDArray[Any]]]:
    """Probabilities of a box, a few sections at a time, in order.

    Args:
        engine: the network.
        raw: voxel values of ``engine.footprint.read_box(write)``, reflected where that leaves the volume.
        write: the wanted box (z, y, x) in voxels.
        intensity: statistics of the whole volume.
        tta: mean over the 8 rotations and flips.
        dtype: in which probabilities are given; uint8: round(255 p).

    Raises:
        InputError: an intensity by which voxel values become too large for the network.
    """
    read, context = engine.footprint.read_box(write), engine.footprint.context
    _, rows, columns = write.relative_to(read.start).slices
    step = max(1, BATCH_PIXELS // (read.shape[1] * read.shape[2]))
    for first in range(0, write.shape[0], step):
        voxels = neighbours(raw[first : first + step + 2 * context], context)
        part = Part(voxels, intensity.mean, intensity.std, rows, columns, dtype)
        answer = _turned(engine, part) if tta else answers(engine, [part])[0]
        refuse_overflown(intensity, finite=answer.finite)
        z = write.start[0] + first
        yield Box((z, *write.start[1:]), (z + len(voxels), *write.stop[1:])), answer.stored[:, 0]


def refuse_overflown(intensity: Intensity, *, finite: bool) -> None:
    """Refuse what a network makes of voxel values that normalising made infinite.

    Raises:
        InputError: probabilities that are not finite.
    """
    if not finite:
        raise InputError(
            f"normalised by intensity {intensity}, voxel values become too large for float32; give the MEAN,STD of the "
            "volume's own voxel values"
        )


def _turned(engine: Engine, part: Part) -> Answer:
    """Mean of the 8 maps ``g^-1 f(g x)``, added in the order of the elements."""
    images = image_of(part)
    total = np.zeros((len(images), 1, *images.shape[2:]), np.float32)
    for element in D4.elements:
        turned = np.ascontiguousarray(act(element, images), dtype=np.float32)
        total += act(inverse_element(element), engine.run(turned)[:, :1]).astype(np.float32, copy=False)
    total /= D4.order
    kept = total[:, :, part.rows, part.columns]
    return Answer(to_stored(kept, part.dtype), bool(np.isfinite(kept).all()))


def predict_array(
    engine: Engine, array: NDArray[Any], intensity: Intensity, *, tile: int | None = None, tta: bool = False
) -> Map:
    """The map of a stack in memory (z, y, x); same shape.

    Raises:
        InputError: a value that is NaN or infinite, with its place.
        UsageError: a tile below 1.
    """
    z, y, x = array.shape
    refuse_non_finite(array, (0, 0, 0))
    result = np.empty((z, y, x), dtype=np.float32)
    tiling = Tiling.plan((z, y, x), (z, y, x), engine.footprint, tile, input_bytes=array.itemsize)
    for box in tiling.tiles(Box.of_shape((z, y, x))):
        result[box.slices] = predict_box(engine, array, box, intensity, tta=tta)
    return result
