"""Boxes, halo, stride and the block grid: every pixel computation of the tiler, in one place.

All boxes are half-open and ordered (z, y, x), in voxels counted from the volume's origin.  A read box may
leave the volume; the part outside is the volume reflected at its border.

        volume origin
        v
        |----stride----|----stride----|----stride----| ...          (y or x)

    read box    [ halo  |  write box, grown to stride multiples  | halo ]
    write box           [ what this block stores ]

Law 1 in these terms.  Let P be the section reflected by the full halo at its four borders, then extended at
the bottom and right to a multiple of the stride, and f the network.  The map is f(P) cropped to the section.
f commutes with shifts by multiples of the stride and sees no further than the halo, so any read box that
starts at a stride multiple and keeps a halo around its write box gives the same values there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class Box:
    """A half-open box ``start <= voxel < stop``, (z, y, x), in voxels."""

    start: Triple
    stop: Triple

    @classmethod
    def of_shape(cls, shape: Triple) -> Box:
        """The box of a whole volume of that shape (z, y, x)."""
        return cls((0, 0, 0), shape)

    @property
    def shape(self) -> Triple:
        """Extent (z, y, x) in voxels."""
        return _zip(lambda a, b: b - a, self.start, self.stop)

    @property
    def voxels(self) -> int:
        """Number of voxels inside."""
        z, y, x = self.shape
        return z * y * x

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """Index for an array of the whole volume; valid only for boxes inside it."""
        z, y, x = (slice(a, b) for a, b in zip(self.start, self.stop, strict=True))
        return z, y, x

    def contains(self, other: Box) -> bool:
        """Whether ``other`` lies inside this box."""
        return all(a <= c and d <= b for a, b, c, d in zip(self.start, self.stop, other.start, other.stop, strict=True))

    def intersect(self, other: Box) -> Box:
        """The common part; its shape has a value <= 0 where there is none."""
        return Box(_zip(max, self.start, other.start), _zip(min, self.stop, other.stop))

    def relative_to(self, origin: Triple) -> Box:
        """The same box counted from ``origin`` instead of the volume's origin."""
        return Box(_zip(lambda a, b: a - b, self.start, origin), _zip(lambda a, b: a - b, self.stop, origin))

    def __str__(self) -> str:
        return ",".join(f"{a}:{b}" for a, b in zip(self.start, self.stop, strict=True))


@dataclass(frozen=True)
class Footprint:
    """What a network needs around a pixel, (z, y, x), in voxels.

    Attributes:
        halo: receptive field radius rounded up to a multiple of the stride; in z the sections on each side that the
            network is given as further channels of the image.
        stride: product of all strides; the network commutes with shifts by its multiples only.

    Raises:
        ValueError: a halo that is negative or no multiple of its stride, or a stride below 1.
    """

    halo: Triple
    stride: Triple

    def __post_init__(self) -> None:
        for halo, stride in zip(self.halo, self.stride, strict=True):
            if stride < 1 or halo < 0 or halo % stride:
                raise ValueError(
                    f"halo {self.halo} with stride {self.stride}: every halo must be a multiple >= 0 of its stride >= 1"
                )

    @property
    def context(self) -> int:
        """Neighbouring sections on each side of the one that is mapped: the halo in z."""
        return self.halo[0]

    @property
    def channels(self) -> int:
        """Channels of the network's images: the section that is mapped amid its neighbours."""
        return 2 * self.context + 1

    def read_box(self, write: Box) -> Box:
        """The aligned box that must be read so that ``write`` comes out exact; may leave the volume."""
        start = _zip3(lambda a, h, s: a // s * s - h, write.start, self.halo, self.stride)
        stop = _zip3(lambda b, h, s: -(-b // s) * s + h, write.stop, self.halo, self.stride)
        return Box(start, stop)


@dataclass(frozen=True)
class BlockGrid:
    """Write blocks of a fixed shape, counted from the volume's origin, clipped to a region of interest (ROI).

    The grid is anchored at the volume's origin, never the ROI's, so that a ROI changes which blocks are
    written but not where blocks begin.

    Attributes:
        roi: the region to be written, inside the volume.
        block: shape (z, y, x) of a block before clipping.

    Raises:
        ValueError: a block extent below 1.
    """

    roi: Box
    block: Triple

    def __post_init__(self) -> None:
        if min(self.block) < 1:
            raise ValueError(f"block is {self.block}; every extent must be at least 1 voxel")

    def __len__(self) -> int:
        z, y, x = (len(r) for r in self._ranges())
        return z * y * x

    def __iter__(self) -> Iterator[Box]:
        """Write boxes in (z, y, x) order, x fastest."""
        for z, y, x in self._product():
            yield Box((z, y, x), _zip(lambda a, b: a + b, (z, y, x), self.block)).intersect(self.roi)

    def _ranges(self) -> tuple[range, range, range]:
        z, y, x = (range(a // n * n, b, n) for a, b, n in zip(self.roi.start, self.roi.stop, self.block, strict=True))
        return z, y, x

    def _product(self) -> Iterator[Triple]:
        zs, ys, xs = self._ranges()
        return ((z, y, x) for z in zs for y in ys for x in xs)


def reflect(index: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Map coordinates outside ``0 <= i < length`` back inside by reflection at the outermost pixel centres.

    ``... 2 1 | 0 1 2 ... n-1 | n-2 n-3 ...``, repeated as often as needed; a length of 1 repeats its pixel.
    The same rule as ``numpy.pad(mode="reflect")``.

    Raises:
        ValueError: ``length`` below 1.
    """
    if length < 1:
        raise ValueError(f"length is {length}; there is nothing to reflect in an empty axis")
    if length == 1:
        return np.zeros_like(index)
    period = 2 * (length - 1)
    folded = index % period
    return np.minimum(folded, period - folded)


class Readable(Protocol):
    """Anything with a shape (z, y, x) that gives a numpy array for three slices: numpy, zarr, our readers."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, key: tuple[slice, slice, slice], /) -> Any: ...


def read_reflected(volume: Readable, box: Box) -> NDArray[np.generic]:
    """Read a box that may leave the volume, the outside filled by reflection.

    Only the voxels that are needed are read, in one request.  Returns an array of shape ``box.shape``.

    Raises:
        ValueError: an empty box or an empty volume.
    """
    if min(box.shape) < 1:
        raise ValueError(f"box {box} is empty; every extent must be at least 1 voxel")
    index = [
        reflect(np.arange(a, b, dtype=np.int64), n) for a, b, n in zip(box.start, box.stop, volume.shape, strict=True)
    ]
    low = [int(i.min()) for i in index]
    z, y, x = (slice(lo, int(i.max()) + 1) for lo, i in zip(low, index, strict=True))
    data = np.asarray(volume[z, y, x])
    if Box.of_shape((volume.shape[0], volume.shape[1], volume.shape[2])).contains(box):
        return data
    iz, iy, ix = (i - lo for lo, i in zip(low, index, strict=True))
    return data[np.ix_(iz, iy, ix)]


def neighbours(sections: NDArray[Any], context: int) -> NDArray[Any]:
    """Sections amid their neighbours, as the channels of one image each.

    ``neighbours(s, c)[i, k] = s[i + k]``: channel k of image i is section z - c + k, where z is the i-th section
    behind the first c.  The channels are trivial fields: rotations and flips act on each by itself.

    Args:
        sections: (n + 2 c, y, x), normally of a ``Footprint.read_box``, so that c of them stand on either side.
        context: c.

    Returns:
        A view (n, 2 c + 1, y, x).

    Raises:
        ValueError: a context below 0, or fewer than 2 c + 1 sections.
    """
    if context < 0 or len(sections) < 2 * context + 1:
        raise ValueError(
            f"{len(sections)} sections with context {context}: a section and its neighbours are 2 context + 1, and "
            "context is at least 0"
        )
    if context == 0:
        return sections[:, None]
    windows = np.lib.stride_tricks.sliding_window_view(sections, 2 * context + 1, axis=0)  # (n, y, x, 2 c + 1)
    return np.moveaxis(windows, -1, 1)


def round_up(value: int, multiple: int) -> int:
    """Smallest multiple of ``multiple`` that is not below ``value``."""
    return -(-value // multiple) * multiple


def _zip(op: Any, a: Triple, b: Triple) -> Triple:
    z, y, x = (op(p, q) for p, q in zip(a, b, strict=True))
    return z, y, x


def _zip3(op: Any, a: Triple, b: Triple, c: Triple) -> Triple:
    z, y, x = (op(p, q, r) for p, q, r in zip(a, b, c, strict=True))
    return z, y, x
