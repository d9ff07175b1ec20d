"""One image of a request, cut into tiles, and its map put together from them: law 1, by way of the queue."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emboundary.model.geometry import Box, neighbours, read_reflected
from emboundary.model.groups import D4, act, inverse_element
from emboundary.service.batching.ticket import Tile
from emboundary.service.engine import Answer, ModelEngine, Part
from emboundary.service.preparing.intensity import Intensity
from emboundary.service.probabilities import Dtype, to_stored
from emboundary.service.run.inference import Map, refuse_overflown
from emboundary.service.run.tiling import Tiling


@dataclass(frozen=True)
class ImageMap:
    """A map that is being made.

    Attributes:
        image: voxel values (z, y, x), finite.
        engine: the network.
        intensity: statistics to normalise by.
        tta: mean over the 8 rotations and flips.
        result: the map (z, y, x) as it will be sent; whole when every tile was accepted.
    """

    image: NDArray[Any]
    engine: ModelEngine
    intensity: Intensity
    tta: bool
    result: NDArray[Any]

    @classmethod
    def begin(
        cls, image: NDArray[Any], engine: ModelEngine, intensity: Intensity, *, tta: bool, dtype: Dtype
    ) -> ImageMap:
        """A map of an image (z, y, x) of which nothing is computed yet."""
        return cls(image, engine, intensity, tta, np.empty(image.shape, dtype))

    def tiles(self, side: int, pixels: int) -> Iterator[Tile]:
        """What is to be computed.

        Args:
            side: as in ``Tiling.plan``.
            pixels: sections go together up to so many, halos included.
        """
        z, y, x = self.image.shape
        tiling = Tiling.plan((z, y, x), (z, y, x), self.engine.footprint, side, input_bytes=self.image.itemsize)
        for tile in tiling.tiles(Box.of_shape((z, y, x))):
            _, height, width = self.engine.footprint.read_box(tile).shape
            step = max(1, pixels // (height * width))
            for first in range(tile.start[0], tile.stop[0], step):
                last = min(first + step, tile.stop[0])
                yield from self._tiles(Box((first, *tile.start[1:]), (last, *tile.stop[1:])))

    def _tiles(self, write: Box) -> Iterator[Tile]:
        n = write.shape[0]  # of images; the sections around them are channels
        read = self.engine.footprint.read_box(write)
        _, y, x = read.shape
        if not self.tta:
            _, rows, columns = write.relative_to(read.start).slices
            dtype: Dtype = self.result.dtype.name  # type: ignore[assignment]  # made from one
            yield Tile(
                self.engine,
                (n, y, x),
                lambda: self._part(self._voxels(write), rows, columns, dtype),
                lambda answer: self._store(write, answer),
            )
            return
        mean = _TurnedMean(self, write)
        for element in D4.elements:
            shape = (n, *act(element, np.broadcast_to(np.uint8(0), (y, x))).shape)
            yield Tile(self.engine, shape, mean.turned(element), mean.collector(element))

    def _voxels(self, write: Box) -> NDArray[Any]:
        """Voxels (n, c, y, x) of a tile with its halo."""
        raw = read_reflected(self.image, self.engine.footprint.read_box(write))
        return neighbours(raw, self.engine.footprint.context)

    def _part(
        self,
        voxels: NDArray[Any],
        rows: slice = slice(None),  # never changed
        columns: slice = slice(None),
        dtype: Dtype = "float32",
    ) -> Part:
        return Part(voxels, self.intensity.mean, self.intensity.std, rows, columns, dtype)

    def _store(self, write: Box, answer: Answer) -> None:
        refuse_overflown(self.intensity, finite=answer.finite)
        self.result[write.slices] = answer.stored[:, 0]


@dataclass
class _TurnedMean:
    """The mean over the 8 rotations and flips of one tile; added in the order of the elements, whoever came first."""

    parent: ImageMap
    write: Box
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _maps: dict[int, Map] = field(default_factory=dict)

    def turned(self, element: int) -> Callable[[], Part]:
        """What reads the tile, turned."""
        return lambda: self.parent._part(np.ascontiguousarray(act(element, self.parent._voxels(self.write))))

    def collector(self, element: int) -> Callable[[Answer], None]:
        """What takes the turned tile's probabilities."""

        def collect(answer: Answer) -> None:
            back = act(inverse_element(element), answer.stored[:, 0]).astype(np.float32)
            with self._lock:
                self._maps[element] = back
                if len(self._maps) < D4.order:
                    return
            total = np.zeros_like(back)
            for each in D4.elements:
                total += self._maps[each]
            total /= D4.order
            self._maps.clear()
            self._finish(total)

        return collect

    def _finish(self, mean: Map) -> None:
        """Crop the mean and keep it as it will be sent."""
        read = self.parent.engine.footprint.read_box(self.write)
        _, rows, columns = self.write.relative_to(read.start).slices
        kept = mean[:, None, rows, columns]
        dtype: Dtype = self.parent.result.dtype.name  # type: ignore[assignment]  # made from one
        with np.errstate(invalid="ignore"):  # told by ``finite``
            answer = Answer(to_stored(kept, dtype), bool(np.isfinite(kept).all()))
        self.parent._store(self.write, answer)
