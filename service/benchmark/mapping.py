"""``predict`` from end to end: a Zarr volume in, a Zarr volume out, beside the bare session over the same images."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import zarr

from emboundary.model.geometry import Triple
from emboundary.service.benchmark.records import Limits, Round, Row
from emboundary.service.benchmark.subjects import Passes, Subject
from emboundary.service.benchmark.watching import Notes, Shape, Watched, metered
from emboundary.service.demo.contest import RAW
from emboundary.service.engine import ModelEngine
from emboundary.service.pace import Waits
from emboundary.service.progress import Advance
from emboundary.service.run.prediction import make_map
from emboundary.service.run.predictor import LocalPredictor
from emboundary.service.run.request import MapRequest
from emboundary.service.volumes import open_volume

_CHUNK = (16, 256, 256)


@dataclass(frozen=True)
class Source:
    """A volume that is mapped.

    Attributes:
        where: path or URL.
        axes: where the file does not name them.
    """

    where: str
    axes: str | None = None


def make_volume(target: Path, shape: Triple) -> Source:
    """Write a Zarr array (z, y, x) of the bundled sample, mirrored as often as the shape needs."""
    with open_volume(RAW) as sample:
        z, y, x = (slice(0, min(have, want)) for have, want in zip(sample.shape, shape, strict=True))
        voxels = sample[z, y, x]
    missing = [(0, want - have) for have, want in zip(voxels.shape, shape, strict=True)]
    chunk = tuple(min(c, n) for c, n in zip(_CHUNK, shape, strict=True))
    zarr.create_array(str(target), data=np.pad(voxels, missing, mode="symmetric"), chunks=chunk)
    return Source(str(target), "zyx")


class MapCase:
    """One model on one volume.

    Args:
        subject: the model.
        passes: 8 averages rotations and flips.
        source: the volume.
        folder: for maps; each is removed once it is made.
        tile: side that the map is cut by; None: what suits the device.
    """

    def __init__(self, subject: Subject, passes: Passes, source: Source, folder: Path, tile: int | None) -> None:
        self._subject = subject
        self._passes: Passes = passes
        self._source = source
        self._target = folder / "map.zarr"
        self._tile = tile
        self._images: dict[Shape, int] = {}
        self._runs: dict[Shape, Callable[[], None]] = {}
        with open_volume(source.where, source.axes) as volume:
            self._shape = volume.shape

    @property
    def title(self) -> str:
        """For people who wait."""
        eight = " + 8x" if self._passes == 8 else ""
        return (
            f"{self._subject.name}{eight} {self._subject.engine.precision}, {' x '.join(map(str, self._shape))} to Zarr"
        )

    def warm(self) -> None:
        """Make one map."""
        self._map()

    def measure(self, limits: Limits) -> Round:
        """One map, then the bare session over the images that its network was given."""
        seconds, notes, waits, device = self._map()
        self._images = dict(notes.images)
        pixels = sum(n * y * x * count for (n, y, x), count in self._images.items())
        bare = self._bare()
        shares = None if waits is None else waits.shares()
        return Round(
            seconds=seconds,
            pixels=int(np.prod(self._shape)),
            limits=limits,
            bare_seconds=bare,
            bare_rate=pixels / bare if bare else None,
            network=notes.busy_seconds / seconds,
            device=device,
            waiting=None if shares is None else (shares.input, shares.compute, shares.output),
        )

    def row(self, rounds: tuple[Round, ...]) -> Row:
        """The case and its rounds."""
        described = self._subject.entry.description
        return Row(
            what="predict",
            model=described.name,
            version=described.version,
            precision=self._subject.engine.precision,
            passes=self._passes,
            shape=self._shape,
            tile=self._tile,
            cost=self._subject.cost,
            rounds=rounds,
            images=tuple(sorted(self._images.items())),
        )

    def _map(self) -> tuple[float, Notes, Waits | None, float | None]:
        notes, listener = Notes(), _Listener()
        # It is one in all but its type: what is not watched is handed on.
        engine = cast(ModelEngine, Watched(self._subject.engine, notes))
        request = MapRequest(self._source.where, self._target, axes=self._source.axes, tile=self._tile)
        with metered(self._subject.engine.device) as meter:
            report = make_map(request, LocalPredictor(engine, self._passes == 8), listener)
        shutil.rmtree(self._target)
        return report.seconds, notes, listener.waits, None if meter is None else meter.mean_busy

    def _bare(self) -> float | None:
        """Seconds of the network alone on the same images."""
        for shape in self._images:
            if shape not in self._runs:
                self._runs[shape] = self._subject.engine.bare(*shape)
                self._runs[shape]()
        began = time.perf_counter()
        for shape, count in self._images.items():
            for _ in range(count):
                self._runs[shape]()
        return time.perf_counter() - began if self._images else None


class _Listener:
    """A reporter that shows nothing, and remembers what the run waits for."""

    def __init__(self) -> None:
        self.waits: Waits | None = None

    def say(self, line: str) -> None:
        """Show nothing."""

    def warn(self, line: str) -> None:
        """Show nothing."""

    @contextmanager
    def bar(self, task: str, voxels: int, waits: Waits | None = None, done: int = 0) -> Iterator[Advance]:  # noqa: ARG002
        """Show nothing."""
        self.waits = self.waits or (waits if task == "predicting" else None)
        yield lambda _: None
