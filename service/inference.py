"""The one way from a volume to a map: read a block with its halo, normalise, run, crop, store.

Law 1 lives here: whatever the tile, the block order, the batch or the region of interest, every probability is
the one that the network gives on the whole section, reflected by the halo at its borders.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from emboundary.model.geometry import BlockGrid, Box, Readable, read_reflected
from emboundary.model.groups import D4, act, inverse_element
from emboundary.service.engine import Engine
from emboundary.service.errors import InputError
from emboundary.service.intensity import Intensity, refuse_non_finite
from emboundary.service.tiling import Tiling

Map = NDArray[np.float32]
Compute = Callable[[Box], Map]

# Sections go through the engine together up to this many pixels: enough to fill a GPU, little enough for a laptop.
_BATCH_PIXELS = 1 << 20
# Blocks in preparation at once: one is in the engine while the next is read.
_WORKERS = 2


class Sink(Protocol):
    """Where the blocks of a map go."""

    def write(self, box: Box, probability: Map) -> None:
        """Store one block, ``probability`` of shape ``box.shape``."""
        ...


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
    read = engine.footprint.read_box(write)
    raw = read_reflected(volume, read)
    _, rows, columns = write.relative_to(read.start).slices
    run = _run_turned if tta else _run
    result = np.empty(write.shape, dtype=np.float32)
    step = max(1, _BATCH_PIXELS // (read.shape[1] * read.shape[2]))
    for first in range(0, write.shape[0], step):
        sections = slice(first, first + step)
        images = intensity.normalise(raw[sections, None])  # (n, 1, y, x)
        result[sections] = run(engine, images)[:, rows, columns]
    if not np.isfinite(result).all():
        raise InputError(
            f"normalised by intensity {intensity}, voxel values become too large for float32; give the MEAN,STD of the "
            "volume's own voxel values"
        )
    return result


def _run(engine: Engine, images: Map) -> Map:
    return engine.run(images)[:, 0]


def _run_turned(engine: Engine, images: Map) -> Map:
    """Mean of the 8 maps ``g^-1 f(g x)``, added in the order of the elements; shape (n, y, x)."""
    total = np.zeros_like(images[:, 0])
    for element in D4.elements:
        turned = np.ascontiguousarray(act(element, images), dtype=np.float32)
        total += act(inverse_element(element), _run(engine, turned)).astype(np.float32, copy=False)
    total /= D4.order
    return total


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
    for box in Tiling.plan((z, y, x), engine.footprint.stride, tile, depth=z).grid:
        result[box.slices] = predict_box(engine, array, box, intensity, tta=tta)
    return result


def run_blocks(grid: BlockGrid, compute: Compute, sink: Sink, progress: Callable[[int], None] | None = None) -> int:
    """Compute and store every block of a grid, reading ahead and writing behind in bounded memory.

    Two workers call ``compute``, so that one block is read while another is in the engine; one more stores the
    results as they become ready.  At most three results exist at once, however large the grid.  The first error
    ends the run: blocks not yet begun are dropped, and the error is raised here.

    Args:
        grid: the blocks; ``compute`` and ``sink`` receive their boxes.
        compute: gives the probabilities of a box; called from two threads at a time.
        sink: receives one block at a time.
        progress: called with the number of voxels of each block, once the sink has stored it.

    Returns:
        The number of blocks stored.
    """

    def store(box: Box, probability: Map) -> None:
        sink.write(box, probability)
        if progress is not None:
            progress(box.voxels)

    stored = 0
    workers = ThreadPoolExecutor(_WORKERS, thread_name_prefix="emboundary-compute")
    writer = ThreadPoolExecutor(1, thread_name_prefix="emboundary-write")
    try:
        writing: Future[None] | None = None
        for box, probability in _computed(grid, compute, workers):
            if writing is not None:
                writing.result()
            writing = writer.submit(store, box, probability)
            stored += 1
        if writing is not None:
            writing.result()
    finally:
        workers.shutdown(cancel_futures=True)
        writer.shutdown()
    return stored


def _computed(grid: BlockGrid, compute: Compute, workers: ThreadPoolExecutor) -> Iterator[tuple[Box, Map]]:
    """Blocks as they become ready; the next one is begun only when the one before has been taken."""
    boxes = iter(grid)
    running = {workers.submit(compute, box): box for box in islice(boxes, _WORKERS)}
    while running:
        ready = next(iter(wait(running, return_when=FIRST_COMPLETED).done))
        yield running.pop(ready), ready.result()
        running |= {workers.submit(compute, box): box for box in islice(boxes, 1)}
