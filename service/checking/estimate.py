"""What a whole run will take, from what one tile took: time, memory, disk."""

from __future__ import annotations

import math
import resource
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from emboundary.model.geometry import Box, Footprint, Readable, Triple, round_up
from emboundary.service.engine import Engine
from emboundary.service.preparing.intensity import Intensity
from emboundary.service.run.inference import BATCH_PIXELS, predict_box
from emboundary.service.run.tiling import Tiling

_STATUS = Path("/proc/self/status")
_MEMORY = Path("/proc/meminfo")
_CONTAINER = Path("/sys/fs/cgroup/memory.max")

# A tile's time is measured on a smaller one first, which also takes the cost of the first run of all.
_PROBE = 128
# What a run holds beside the network: blocks being filled, waiting and being stored; tiles being read, waiting, and one
# being computed; and what codecs and threads took at most in runs of the bundled models.
_BLOCKS, _TILES, _BESIDE_BYTES = 3, 5, 1 << 28


@dataclass(frozen=True)
class TilePass:
    """One pass of the network over a tile.

    Attributes:
        write: shape (z, y, x) of what it gave, in voxels.
        pixels: that the network saw, the halo included.
        seconds: it took, once warm.
        memory_bytes: largest resident memory of this process until then, scaled to the tile that was asked for.
    """

    write: Triple
    pixels: int
    seconds: float
    memory_bytes: int

    @property
    def pixels_per_second(self) -> float:
        """Halo included."""
        return self.pixels / self.seconds


@dataclass(frozen=True)
class Estimate:
    """What a run over a box of the volume is expected to take.

    Attributes:
        tile: sides (y, x) of the tiles that this is about, in voxels.
        compute_seconds: of the network, halos included.
        read_seconds: to read the box once, as fast as the sample was read.
        measure_seconds: to measure the volume's intensity before; 0 where it is given.
        memory_bytes: largest resident memory.
        free_memory_bytes: that this process may take in all, as far as the system tells.
        output_bytes: upper bound for OUTPUT, uncompressed, with its pyramid, for the dtype uint8.
    """

    tile: tuple[int, int]
    compute_seconds: float
    read_seconds: float
    measure_seconds: float
    memory_bytes: int
    free_memory_bytes: int | None
    output_bytes: int

    @property
    def seconds(self) -> float:
        """Reading, computing and storing go on at the same time; measuring comes before."""
        return max(self.compute_seconds, self.read_seconds) + self.measure_seconds


def time_tile(
    engine: Engine,
    volume: Readable,
    region: Box,
    centre: Triple,
    tile: Triple,
    intensity: Intensity,
    *,
    tta: bool,
    clock: Callable[[], float],
    seconds: float,
) -> TilePass:
    """Run a tile as far as sections go together, or less if a small part lets expect more than ``seconds``.

    Args:
        engine: the network.
        volume: array-like (z, y, x).
        region: the box to be mapped; the tile lies inside.
        centre: (z, y, x) of the tile, moved where it would leave the region.
        tile: its shape (z, y, x), in voxels.
        intensity: statistics of the whole volume.
        tta: mean over the 8 rotations and flips.
        clock: seconds from any origin.
        seconds: that the pass may take.
    """

    def part(side: int, depth: int = 1) -> Box:
        return _around(region, centre, (depth, min(side, tile[1]), min(side, tile[2])))

    def run(box: Box) -> tuple[Box, float]:
        began = clock()
        predict_box(engine, volume, box, intensity, tta=tta)
        return box, clock() - began

    def seen(box: Box) -> int:
        _, y, x = engine.footprint.read_box(box).shape
        return box.shape[0] * y * x  # neighbouring sections are channels of the same images

    side = max(tile[1:])
    together = max(1, min(tile[0], BATCH_PIXELS // seen(part(side))))
    whole = seen(part(side, together))
    first, took = run(part(_PROBE))
    if took < seconds / 4:  # it may have been the first run of all
        first, took = run(part(_PROBE))
    if took * whole / seen(first) > seconds:
        together = 1
    while side > _PROBE and took * seen(part(side, together)) / seen(first) > seconds:
        side = side * 3 // 4
    before = _resident("VmRSS")
    box, took = run(part(side, together))
    if took < seconds / 2:
        box, took = min((box, took), run(box), key=lambda one: one[1])
    peak = _resident("VmHWM")
    memory = before + round(max(0, peak - before) * whole / seen(box))
    return TilePass(box.shape, seen(box), took, max(peak, memory))


def estimate(
    tiling: Tiling,
    footprint: Footprint,
    one: TilePass,
    *,
    read_voxels_per_second: float,
    measured_voxels: int,
    itemsize: int,
    output_bytes: int,
) -> Estimate:
    """What a run takes, from one tile of it.

    Args:
        tiling: the cut of the map.
        footprint: of the network.
        one: what a tile took.
        read_voxels_per_second: of the volume, chunks decoded.
        measured_voxels: that are read to measure the intensity; 0 where it is given.
        itemsize: bytes of a voxel.
        output_bytes: upper bound for OUTPUT.
    """
    z, y, x = tiling.tile
    block = math.prod(min(b, n) for b, n in zip(tiling.block, tiling.shape, strict=True))
    tile = footprint.read_box(Box((0, 0, 0), (z, y, x))).voxels * itemsize
    return Estimate(
        (y, x),
        read_pixels(tiling, footprint) / one.pixels_per_second,
        math.prod(tiling.shape) / read_voxels_per_second,
        measured_voxels / read_voxels_per_second,
        one.memory_bytes + _BLOCKS * block + _TILES * tile + _BESIDE_BYTES,
        free_memory(),
        output_bytes,
    )


def read_pixels(tiling: Tiling, footprint: Footprint) -> int:
    """How many pixels the network sees in all: tiles, each with its halo."""
    z, *_ = tiling.shape
    seen = z
    for axis in (1, 2):
        extent, block, tile = tiling.shape[axis], tiling.block[axis], tiling.tile[axis]
        whole, rest = divmod(extent, block)
        tiles = whole * -(-block // tile) + -(-rest // tile)
        seen *= round_up(extent, footprint.stride[axis]) + 2 * footprint.halo[axis] * tiles
    return seen


def free_memory() -> int | None:
    """Bytes that this process may hold in all before the system, or its container, runs out; None: not known."""
    available = _field(_MEMORY, "MemAvailable")
    if available is None:
        return None
    free = available + _resident("VmRSS")
    try:
        return min(free, int(_CONTAINER.read_text()))
    except (OSError, ValueError):  # no container, or "max": no limit
        return free


def _around(region: Box, centre: Triple, shape: Triple) -> Box:
    """A box of a shape around a place, as far as the region reaches."""
    start, stop = [], []
    for middle, side, low, high in zip(centre, shape, region.start, region.stop, strict=True):
        length = min(side, high - low)
        start.append(min(max(low, middle - length // 2), high - length))
        stop.append(start[-1] + length)
    return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))


def _resident(name: str) -> int:
    """Resident memory of this process in bytes, now (``VmRSS``) or at most (``VmHWM``).

    ``getrusage`` is for kernels without these lines: its figure begins with that of the program that started this one.
    """
    found = _field(_STATUS, name)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 if found is None else found


def _field(path: Path, name: str) -> int | None:
    """A line ``name: N kB`` of one of the kernel's files, in bytes."""
    try:
        text = path.read_text()
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return None
