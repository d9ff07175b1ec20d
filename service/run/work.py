"""The two kinds of work of a run: the map itself, and each coarser level of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emboundary.model.geometry import BlockGrid, Box, Triple
from emboundary.service.probabilities import Dtype, to_stored
from emboundary.service.run.computing import Computation
from emboundary.service.run.ledger import Ledger
from emboundary.service.run.tiling import Tiling, split
from emboundary.service.volumes import Output
from emboundary.service.volumes.layout import downsample, source_box
from emboundary.service.volumes.place import storing

# Voxels of a block of a coarser level; eight times as many are read for it.
_LEVEL_BLOCK_VOXELS = 1 << 21


@dataclass(frozen=True)
class Missing:
    """A block that could not be made.

    Attributes:
        number: in the order of the level's blocks.
        box: counted from the map's first voxel.
        reason: why, in one line.
    """

    number: int
    box: Box
    reason: str


@dataclass
class Storing:
    """What both kinds of work share: blocks go to one level of an output, and what is done to a ledger.

    Attributes:
        target: OUTPUT's name, for messages.
        level: of the output that is written.
        missing_blocks: those of this run that could not be made.
    """

    target: Path
    output: Output
    ledger: Ledger
    level: int
    dtype: Dtype
    missing_blocks: list[Missing] = field(default_factory=list, init=False)

    def blocks(self, grid: BlockGrid) -> Iterator[tuple[int, Box]]:
        """The blocks that are not done yet, with their numbers."""
        return ((n, box) for n, box in enumerate(grid) if not self.ledger.done(self.level, n))

    def empty(self, block: Box) -> NDArray[Any]:
        """Memory for a block's encoded voxels."""
        return np.empty(block.shape, self.dtype)

    def write(self, block: Box, encoded: NDArray[Any]) -> None:
        """Store a block."""
        self.output.write(block, encoded, self.level)

    def flush(self) -> None:
        """Return when all that was stored is on the disk."""
        self.output.flush()

    def done(self, numbers: list[int]) -> None:
        """Record blocks whose bytes are safe."""
        with storing(self.target, kept=True):
            self.ledger.mark(self.level, numbers)

    def missing(self, number: int, block: Box, reason: str) -> None:
        """Record a block that cannot be read."""
        self.missing_blocks.append(Missing(number, block, reason))
        with storing(self.target, kept=True):
            self.ledger.note_missing(self.level, number, str(block), reason)


@dataclass
class MapWork(Storing):
    """The map at full resolution.

    Attributes:
        computation: gives probabilities of boxes that are counted from the volume's first voxel.
        tiling: of the map.
        origin: first voxel of the ROI, in the volume.
    """

    computation: Computation
    tiling: Tiling
    origin: Triple

    def tiles(self, block: Box) -> Iterable[Box]:
        """Cut a block into tiles."""
        return self.tiling.tiles(block)

    def load(self, tile: Box) -> Any:
        """Read what a tile needs."""
        z, y, x = self.origin
        return self.computation.load(tile.relative_to((-z, -y, -x)))

    def run(self, loaded: Any) -> Iterator[tuple[Box, NDArray[Any]]]:
        """Encoded probabilities of a tile."""
        for box, probability in self.computation.run(loaded):
            yield box.relative_to(self.origin), to_stored(probability, self.dtype)

    def skips(self, loaded: Any) -> bool:
        """Whether the tile needs no network."""
        return self.computation.skips(loaded)

    def fill(self, missing: Missing, value: float) -> None:
        """Store a value in place of a block that could not be made, and record that."""
        encoded = to_stored(np.full(missing.box.shape, value, np.float32), self.dtype)
        self.write(missing.box, encoded)
        self.flush()
        with storing(self.target, kept=True):
            self.ledger.note_filled(self.level, missing.number, str(missing.box), missing.reason, value)


@dataclass
class ShrinkWork(Storing):
    """A coarser level, made from the one before it."""

    @property
    def grid(self) -> BlockGrid:
        """The level's blocks: whole units, side by side along x."""
        level = self.output.levels[self.level]
        z, y, x = (min(u, n) for u, n in zip(level.unit, level.shape, strict=True))
        wide = x * max(1, _LEVEL_BLOCK_VOXELS // (z * y * x))
        return BlockGrid(Box.of_shape(level.shape), (z, y, min(wide, -(-level.shape[2] // x) * x)))

    def tiles(self, block: Box) -> Iterable[Box]:
        """Cut a block into what is shrunk at once."""
        y, x = block.shape[1:]
        return split(block, (max(1, _LEVEL_BLOCK_VOXELS // (y * x)), y, x))

    def load(self, tile: Box) -> tuple[Box, NDArray[Any], Triple]:
        """Read the box of the finer level that a tile shrinks."""
        box, factors = source_box(self.output.levels, self.level, tile)
        return tile, self.output.read(box, self.level - 1), factors

    def run(self, loaded: tuple[Box, NDArray[Any], Triple]) -> Iterator[tuple[Box, NDArray[Any]]]:
        """The tile's voxels."""
        tile, fine, factors = loaded
        yield tile, downsample(fine, factors)

    def skips(self, loaded: Any) -> bool:  # noqa: ARG002
        """Nothing is skipped."""
        return False
