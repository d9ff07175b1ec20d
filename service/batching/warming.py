"""First runs of a network, so that no request waits for kernels and memory to be found, and its speed is known."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import numpy as np

from emboundary.model.geometry import round_up
from emboundary.service.batching.buckets import Buckets
from emboundary.service.batching.scheduler import Policy, Scheduler
from emboundary.service.engine import ModelEngine, OnnxEngine

# Where any shape is as good as another, one of so many pixels a side tells how fast a network is.
_PROBE = 256


def warm_up(engine: OnnxEngine, policy: Policy, tile: int, scheduler: Scheduler) -> None:
    """Run every square shape that batches will have, and let the scheduler know how long the last one took.

    Memory is then as large as requests will make it: what does not fit fails now, and not in a month.

    Args:
        engine: the network.
        policy: of the scheduler.
        tile: side of the largest tiles in pixels, before the halo.
        scheduler: in front of the device.

    Raises:
        DeviceError: the runtime failed, as it does when memory runs out.
    """
    shapes = list(_shapes(engine, policy, tile))
    for shape in sorted(shapes, key=math.prod, reverse=True):  # memory is taken once, for the largest
        engine.warm(*shape)
    n, y, x = shapes[-1]
    began = time.perf_counter()
    engine.run(np.zeros((n, engine.footprint.channels, y, x), np.float32))
    scheduler.learn(engine, n * y * x, time.perf_counter() - began)


def _shapes(engine: ModelEngine, policy: Policy, tile: int) -> Iterator[tuple[int, int, int]]:
    """Batches (n, y, x); the last one is used to tell the speed."""
    footprint = engine.footprint
    buckets = Buckets.for_device(engine.device, footprint, policy.bucket_sides)
    if not buckets.sides:
        for largest in (tile, min(_PROBE, tile)):
            side = round_up(largest, footprint.stride[1]) + 2 * footprint.halo[1]
            yield 1, side, side
        return
    for side in buckets.sides:  # oblong images are rare: the first of a shape waits for its kernels
        most = max(1, policy.pixels(engine.device) // (side * side))
        n = 1
        while n <= (most if buckets.powers else 1):
            yield n, side, side
            n *= 2
