"""Few shapes instead of many: on a GPU every new shape costs a pause while kernels and memory are found for it.

What is added lies below and to the right of a tile that already has its halo, so no pixel that is kept sees it.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

from emboundary.model.geometry import Footprint, round_up

# Sides of tiles, before the halo, that requests mostly have; the default tile is the largest.
_LADDER = (64, 128, 256, 512, 896)


@dataclass(frozen=True)
class Buckets:
    """Sides that images are padded to.

    Attributes:
        sides: in pixels, ascending; empty: images stay as they are.
        powers: whether 1, 2, 4, 8, ... images go together, and no other numbers.
    """

    sides: tuple[int, ...] = ()
    powers: bool = False

    @classmethod
    def for_device(cls, device: str, footprint: Footprint, sides: tuple[int, ...] | None) -> Buckets:
        """What was asked for; else nothing on a CPU, which takes any shape alike, and a ladder of sides on a GPU."""
        stride, halo = footprint.stride[1], footprint.halo[1]
        if sides is not None:
            return cls(tuple(sorted(round_up(side, stride) for side in sides)), powers=device == "cuda")
        if device != "cuda":
            return cls()
        return cls(tuple(round_up(side, stride) + 2 * halo for side in _LADDER), powers=True)

    def side(self, extent: int) -> int:
        """The side that an extent is padded to; itself where it is larger than all."""
        place = bisect_left(self.sides, extent)
        return self.sides[place] if place < len(self.sides) else extent

    def shape(self, y: int, x: int) -> tuple[int, int]:
        """The shape that images (y, x) get."""
        return self.side(y), self.side(x)
