"""One run from INPUT to OUTPUT: the same steps for a network here and for one behind a URL.

What a run has done stands in a hidden folder beside OUTPUT until the map is whole; whatever ends the run before,
the same request goes on from there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import numpy as np

from emboundary.model.geometry import Box
from emboundary.service import voxel_size
from emboundary.service.clahe import Clahe
from emboundary.service.computing import Computation, Masked, RescaledComputation
from emboundary.service.errors import EmboundaryError, InterruptedRunError, OutputError, UsageError
from emboundary.service.intensity import Intensity, measure
from emboundary.service.ledger import Header, Ledger, differences, read_header
from emboundary.service.pipeline import Pipeline, Waiting
from emboundary.service.predictor import Predictor
from emboundary.service.progress import Reporter
from emboundary.service.request import MapRequest
from emboundary.service.rescaling import Rescaled
from emboundary.service.roi import parse_roi
from emboundary.service.tiling import Tiling
from emboundary.service.volumes import MapSpec, Output, SpaceAxes, Volume, check_output, open_map, open_volume
from emboundary.service.volumes.layout import Level, default_chunk, default_shard, plan_levels
from emboundary.service.volumes.place import Place, storing
from emboundary.service.work import MapWork, Missing, ShrinkWork

# Beyond this a map would take longer than any machine lasts; metadata that say so are mostly damaged.
_MOST_VOXELS = 1 << 54


@dataclass(frozen=True)
class MapReport:
    """What a run did.

    Attributes:
        voxels: of OUTPUT that this run stored.
        seconds: from opening INPUT to the last byte stored.
        blocks_done: computed and stored by this run.
        blocks_resumed: found stored by an earlier run.
        blocks_constant: stored by this run without the network, because they are constant or outside the mask.
        missing: blocks that could not be read; where they were not filled, OUTPUT is not there yet.
        complete: whether OUTPUT is there.
        intensity: what voxel values were normalised by.
    """

    voxels: int
    seconds: float
    blocks_done: int
    blocks_resumed: int
    blocks_constant: int
    missing: tuple[Missing, ...]
    complete: bool
    intensity: Intensity

    @property
    def blocks_skipped(self) -> int:
        """Blocks that this run did not compute."""
        return self.blocks_resumed + self.blocks_constant

    @property
    def voxels_per_second(self) -> float:
        """Voxels stored per second, all steps included."""
        return self.voxels / self.seconds


def make_map(
    request: MapRequest, predictor: Predictor, reporter: Reporter, clock: Callable[[], float] = time.perf_counter
) -> MapReport:
    """Map a volume; OUTPUT appears when it is whole, or not at all.

    Raises:
        UsageError: a ROI, tile, dtype or suffix that does not fit.
        InputError: INPUT is missing, damaged, or no volume of grey values.
        OutputError: OUTPUT exists, cannot be written, does not fit on the disk, is being written by another run, or
            was begun with other arguments.
        InterruptedRunError: Ctrl-C or SIGTERM after blocks were stored; the same request goes on from there.
    """
    began = clock()
    with ExitStack() as opened:
        run = _Run.prepare(request, predictor, reporter, opened)
        report = run.execute()
    return replace(report, seconds=clock() - began)


@dataclass
class _Run:
    """Everything that is known before the first block.

    Attributes:
        volume: INPUT.
        seen: INPUT as its intensities are measured: equalised, if that was asked for.
        levels: of OUTPUT.
    """

    request: MapRequest
    predictor: Predictor
    reporter: Reporter
    volume: Volume
    seen: Volume | Clahe
    mask: Volume | None
    roi: Box
    levels: tuple[Level, ...]
    tiling: Tiling
    scale: tuple[float, float] | None

    @classmethod
    def prepare(cls, request: MapRequest, predictor: Predictor, reporter: Reporter, opened: ExitStack) -> _Run:
        """Open what is read, and refuse what does not fit, before anything is written."""
        volume = opened.enter_context(
            open_volume(request.source, axes=request.axes, voxel_size_nm=request.voxel_size_nm)
        )
        roi = parse_roi(request.roi, volume.shape)
        if roi.voxels > _MOST_VOXELS:
            raise UsageError(
                f"the map would have {roi.voxels} voxels of shape (z, y, x) = {roi.shape}; at most {_MOST_VOXELS} are "
                "mapped in one run: give --roi, or mend the metadata of INPUT"
            )
        check_output(request.target, roi.shape, request.dtype, overwrite=request.overwrite)
        scale = _scale(request, predictor, volume, reporter)
        seen = Clahe(volume) if request.clahe else volume
        levels = _levels(request, roi, volume.axes)
        tiling = predictor.plan(
            roi.shape,
            levels[0].unit,
            np.dtype(np.float32) if scale else seen.dtype,
            request.tile,
            output_bytes=np.dtype(request.dtype).itemsize,
            scale=max(scale or (1.0, 1.0)),
        )
        mask = None
        if request.mask is not None:
            mask = opened.enter_context(open_volume(request.mask))
            if mask.shape != volume.shape:
                raise UsageError(
                    f"mask {request.mask} has shape (z, y, x) = {mask.shape}, INPUT has {volume.shape}; they must be "
                    "equal: give a mask on the grid of INPUT"
                )
        return cls(request, predictor, reporter, volume, seen, mask, roi, levels, tiling, scale)

    def execute(self) -> MapReport:
        """Begin or go on, and publish what is whole."""
        with Place.take(self.request.target) as place, self._kept_if_begun(place) as begun:
            header = self._header(place)
            if header is None:
                with storing(self.request.target):
                    # Before its map: a ledger must never speak of blocks that another run has removed.
                    place.ledger.unlink(missing_ok=True)
            intensity, facts = self._intensity(header)
            spec = MapSpec(
                self.roi.shape,
                self.request.dtype,
                _cropped(self.volume, self.roi),
                self._provenance(facts),
                self.levels,
                self.request.ome_zarr,
            )
            with open_map(place.data, spec, resume=header is not None) as output:
                with storing(self.request.target):
                    if header is None:
                        ledger = Ledger.begin(place.ledger, Header(self._fingerprint(), facts))
                    else:
                        ledger = Ledger(place.ledger)
                with ledger:
                    begun.append(ledger)
                    report = self._map(output, ledger, intensity)
                    if report.complete:
                        self._shrink(output, ledger)
                        missing = {"missing": ledger.filled} if ledger.filled else {}
                        output.finish({**spec.provenance, **missing})
            if report.complete:
                place.publish(overwrite=self.request.overwrite)
            elif not ledger.count():
                place.discard()
        return report

    def _header(self, place: Place) -> Header | None:
        """What an earlier run left, if this one can go on with it; None: begin.

        Raises:
            OutputError: it was another run.
        """
        try:
            header = read_header(place.ledger)
        except OutputError:
            if not self.request.overwrite:
                raise
            header = None
        if header is None:
            return None
        differing = differences(header.fingerprint, self._fingerprint())
        if not differing:
            return header
        if self.request.overwrite:
            self.reporter.warn(f"an unfinished run of {self.request.target} with other arguments was removed")
            return None
        raise OutputError(
            f"{self.request.target} was begun by a run that differs: {'; '.join(differing)}; give the same arguments "
            "to go on with it, or --overwrite to start over"
        )

    def _intensity(self, header: Header | None) -> tuple[Intensity, dict[str, Any]]:
        """Given, or found by the run that began, or measured; with what is to be recorded of it."""
        if header is not None:
            mean, std = header.facts["intensity"]
            return Intensity(mean, std), header.facts
        if self.request.intensity is not None:
            given = self.request.intensity
            return given, {"intensity": [given.mean, given.std], "statistics": {"rule": "given"}}
        z, y, x = self.seen.shape
        with self.reporter.bar("measuring", z * y * x) as advance:
            statistics = measure(self.seen, advance)
        found = statistics.intensity
        self.reporter.say(f"intensity of the whole volume: mean {found.mean:.4g}, standard deviation {found.std:.4g}")
        for box in statistics.record.get("unreadable", ()):
            self.reporter.warn(f"{box} cannot be read and is left out of the statistics")
        return found, {"intensity": [found.mean, found.std], "statistics": statistics.record}

    def _computation(self, intensity: Intensity) -> Computation:
        computation: Computation
        if self.scale is None:
            computation = self.predictor.bind(self.seen, intensity, self.request.fill)
        else:
            rescaled = Rescaled(self.seen, self.scale)
            computation = RescaledComputation(self.predictor.bind(rescaled, intensity, self.request.fill), rescaled)
        return computation if self.mask is None else Masked(computation, self.mask, self.request.fill or 0.0)

    def _map(self, output: Output, ledger: Ledger, intensity: Intensity) -> MapReport:
        """Compute and store what is not done yet."""
        target, dtype = self.request.target, self.request.dtype
        work = MapWork(target, output, ledger, 0, dtype, self._computation(intensity), self.tiling, self.roi.start)
        resumed = ledger.count()
        done = sum(box.voxels for n, box in enumerate(self.tiling.grid) if ledger.done(0, n)) if resumed else 0
        if resumed:
            self.reporter.say(
                f"{resumed} of {len(self.tiling.grid)} blocks were stored by an earlier run; going on from there"
            )
        waiting = Waiting()
        with self.reporter.bar("predicting", self.roi.voxels, waiting, done) as advance:
            pipeline = Pipeline(work, workers=self.predictor.workers, advance=advance, waiting=waiting)
            tally = pipeline.run(work.blocks(self.tiling.grid))
        missing = tuple(sorted(work.missing_blocks, key=lambda block: block.number))
        if self.request.fill_missing is not None:
            for block in missing:
                work.fill(block, self.request.fill_missing)
        return MapReport(
            voxels=self.roi.voxels - done - sum(block.box.voxels for block in missing),
            seconds=0.0,
            blocks_done=tally.stored - tally.skipped,
            blocks_resumed=resumed,
            blocks_constant=tally.skipped,
            missing=missing,
            complete=not missing or self.request.fill_missing is not None,
            intensity=intensity,
        )

    def _shrink(self, output: Output, ledger: Ledger) -> None:
        """Make the coarser levels, each from the one before."""
        for number in range(1, len(output.levels)):
            work = ShrinkWork(self.request.target, output, ledger, number, self.request.dtype)
            waiting = Waiting()
            with self.reporter.bar(f"level {number}", Box.of_shape(output.levels[number].shape).voxels) as advance:
                Pipeline(work, advance=advance, waiting=waiting).run(work.blocks(work.grid))

    @contextmanager
    def _kept_if_begun(self, place: Place) -> Iterator[list[Ledger]]:
        """Whatever ends the run: keep what is stored and say so, or remove a run that has stored nothing.

        Gives a list for the ledger, once there is one.  A run that is refused before leaves the place as it was.
        """
        before = place.ledger.exists()
        begun: list[Ledger] = []
        try:
            yield begun
        except BaseException as error:
            stored = sum(ledger.count() for ledger in begun)
            if not stored:
                if begun or not before:
                    place.discard()
                raise
            kept = f"{stored} of {len(self.tiling.grid)} blocks are stored, and the same command goes on from there"
            if isinstance(error, KeyboardInterrupt):
                raise InterruptedRunError(f"interrupted; {kept}") from None
            if isinstance(error, EmboundaryError):
                error.args = (f"{error}; {kept}",)
            raise

    def _fingerprint(self) -> dict[str, Any]:
        """Everything that decides about OUTPUT's bytes."""
        request = self.request
        given = request.intensity
        return {
            "emboundary": version("emboundary"),
            **self.predictor.identity(),
            "input": self.volume.identity(),
            "intensity": "measured" if given is None else [given.mean, given.std],
            "roi": str(self.roi),
            "dtype": request.dtype,
            "tile": list(self.tiling.tile),
            "block": list(self.tiling.block),
            "levels": [
                [list(level.shape), list(level.chunk), level.shard and list(level.shard)] for level in self.levels
            ],
            "format": f"ome-zarr {request.ome_zarr}" if request.target.suffix == ".zarr" else request.target.suffix,
            "clahe": self.seen.parameters() if isinstance(self.seen, Clahe) else None,
            "rescale": None if self.scale is None else list(self.scale),
            "mask": None if self.mask is None else self.mask.identity(),
            "fill": request.fill,
        }

    def _provenance(self, facts: dict[str, Any]) -> dict[str, Any]:
        """How the map was made, as it is stored with it; what was not asked for is left out."""
        request = self.request
        asked = {
            "clahe": self.seen.parameters() if isinstance(self.seen, Clahe) else None,
            "rescale": None if self.scale is None else list(self.scale),
            "mask": request.mask,
            "fill": request.fill,
        }
        return {
            "emboundary_version": version("emboundary"),
            "content": "boundary probability; uint8 stores round(255 p)",
            **self.predictor.provenance(),
            "input": request.source,
            "roi": str(self.roi),
            "tile": list(self.tiling.tile),
            "block": list(self.tiling.block),
            **facts,
            **{name: value for name, value in asked.items() if value is not None},
        }


def _scale(request: MapRequest, predictor: Predictor, volume: Volume, reporter: Reporter) -> tuple[float, float] | None:
    """Pixels that the network sees for one of the volume, along (y, x); None: it sees the volume as it is.

    Raises:
        UsageError: resampling of a volume whose voxel size is unknown.
    """
    if request.rescale:
        if volume.voxel_size_nm is None:
            raise UsageError(
                f"rescale needs the voxel size of {request.source}, but it says none; give --voxel-size Z,Y,X in nm"
            )
        factors = voxel_size.factors(volume.voxel_size_nm, predictor.trained_voxel_sizes_nm)
        reporter.say(f"resampled for the network by {factors[0]:.4g} along y and {factors[1]:.4g} along x")
        return factors
    mismatch = voxel_size.mismatch(volume.voxel_size_nm, predictor.trained_voxel_sizes_nm)
    if mismatch is not None:
        reporter.warn(str(mismatch))
    return None


def _levels(request: MapRequest, roi: Box, axes: SpaceAxes) -> tuple[Level, ...]:
    """How OUTPUT is laid out, as asked for, or as suits viewers and file systems."""
    chunk = request.chunk or default_chunk(roi.shape, axes)
    shard = request.shard
    if shard is None and request.ome_zarr == "0.5":
        shard = default_shard(roi.shape, chunk)
    return plan_levels(roi.shape, axes, chunk, shard, pyramid=request.pyramid)


def _cropped(volume: Volume, roi: Box) -> SpaceAxes:
    z, y, x = (axis.cropped(start) for axis, start in zip(volume.axes, roi.start, strict=True))
    return z, y, x
