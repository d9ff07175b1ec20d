"""One run from INPUT to OUTPUT: the same steps for a network here and for one behind a URL.

What a run has done stands in a hidden folder beside OUTPUT until the map is whole; whatever ends the run before,
the same request goes on from there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

from emboundary.model.geometry import Box
from emboundary.service.errors import EmboundaryError, InterruptedRunError, OutputError
from emboundary.service.preparing.intensity import Intensity, measure
from emboundary.service.preparing.rescaling import Rescaled
from emboundary.service.probabilities import Dtype
from emboundary.service.progress import Reporter
from emboundary.service.run.computing import Computation, Masked, RescaledComputation
from emboundary.service.run.heap import keep_tight
from emboundary.service.run.ledger import Header, Ledger, differences, read_header
from emboundary.service.run.pipeline import Pipeline, Waiting
from emboundary.service.run.plan import Plan
from emboundary.service.run.predictor import Predictor
from emboundary.service.run.request import MapRequest
from emboundary.service.run.work import MapWork, Missing, ShrinkWork
from emboundary.service.volumes import Output, open_map
from emboundary.service.volumes.place import Place, is_begun, storing


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


class Follower(Protocol):
    """Whoever keeps account of a run, beside people who watch it; told from several threads, one at a time."""

    def planned(self, plan: Plan) -> None:
        """The run begins, or goes on: nothing has been written by it yet."""
        ...

    def stored(self, blocks: int) -> None:
        """So many blocks of the map are safe by now, those of earlier runs among them."""
        ...

    def finished(self, report: MapReport) -> None:
        """All is stored; what follows is that OUTPUT gets its name, and that the hidden folder goes."""
        ...


def make_map(
    request: MapRequest,
    predictor: Predictor,
    reporter: Reporter,
    clock: Callable[[], float] = time.perf_counter,
    follower: Follower | None = None,
) -> MapReport:
    """Map a volume; OUTPUT appears when it is whole, or not at all.

    Args:
        request: what is asked for.
        predictor: the network.
        reporter: shows how far the run is; what it raises as voxels advance ends the run, with what is whole kept.
        clock: seconds from any origin.
        follower: told what has been decided and what is safe; what it raises ends the run.

    Raises:
        UsageError: a ROI, tile, dtype or suffix that does not fit.
        InputError: INPUT is missing, damaged, or no volume of grey values.
        OutputError: OUTPUT exists, cannot be written, does not fit on the disk, is being written by another run, or
            was begun with other arguments.
        InterruptedRunError: Ctrl-C or SIGTERM after blocks were stored; the same request goes on from there.
    """
    began = clock()
    keep_tight()
    with ExitStack() as opened:
        plan = Plan.prepare(request, predictor, reporter, opened)
        report = _Run(plan, reporter, follower or _Nobody(), lambda: clock() - began).execute()
    return replace(report, seconds=clock() - began)


def refuse_another_run(plan: Plan, reporter: Reporter) -> None:
    """Refuse a run that would be refused as soon as it began, because of what stands at its OUTPUT.

    Raises:
        OutputError: another run is writing OUTPUT, or has begun it with other arguments.
    """
    if is_begun(plan.request.target):
        with Place.take(plan.request.target) as place:
            _Run(plan, reporter, _Nobody(), lambda: 0.0).header(place)


class _Nobody:
    """Keeps no account."""

    def planned(self, plan: Plan) -> None:
        """Nothing."""

    def stored(self, blocks: int) -> None:
        """Nothing."""

    def finished(self, report: MapReport) -> None:
        """Nothing."""


@dataclass(frozen=True)
class _Run:
    """A plan being carried out."""

    plan: Plan
    reporter: Reporter
    follower: Follower
    seconds: Callable[[], float]

    @property
    def request(self) -> MapRequest:
        """What was asked for."""
        return self.plan.request

    def execute(self) -> MapReport:
        """Begin or go on, and publish what is whole."""
        with Place.take(self.request.target) as place, self._kept_if_begun(place) as begun:
            if place.published and (report := self._published(place)) is not None:
                return report
            header = self.header(place)
            self.follower.planned(self.plan)
            if header is None:
                with storing(self.request.target):
                    # Before its map: a ledger must never speak of blocks that another run has removed.
                    place.ledger.unlink(missing_ok=True)
            intensity, facts = self._intensity(header)
            spec = self.plan.spec(facts)
            with open_map(place.data, spec, resume=header is not None) as output:
                with storing(self.request.target):
                    if header is None:
                        ledger = Ledger.begin(place.ledger, Header(self.plan.fingerprint, facts))
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
                self.follower.finished(replace(report, seconds=self.seconds()))
                place.publish(overwrite=self.request.overwrite)
            elif not ledger.count():
                place.discard()
        return report

    def _published(self, place: Place) -> MapReport | None:
        """What is left to say where an earlier run was killed after its map had its name; None: begin another.

        Raises:
            OutputError: that was another run, and its map is not to be replaced.
        """
        header = read_header(place.ledger)
        if header is None or differences(header.fingerprint, self.plan.fingerprint):
            if self.request.overwrite:
                return None
            place.discard()
            raise OutputError(
                f"OUTPUT {self.request.target} exists; move it away, or give --overwrite to replace it once the new "
                "map is whole"
            )
        place.discard()
        self.reporter.say(f"{self.request.target} was whole already: an earlier run was killed as it ended")
        mean, std = header.facts["intensity"]
        blocks = len(self.plan.tiling.grid)
        return MapReport(0, 0.0, 0, blocks, 0, (), complete=True, intensity=Intensity(mean, std))

    def header(self, place: Place) -> Header | None:
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
        differing = differences(header.fingerprint, self.plan.fingerprint)
        if not differing:
            return header
        if self.request.overwrite:
            self.reporter.warn(f"an unfinished run of {self.request.target} with other arguments was removed")
            return None
        raise OutputError(
            f"{self.request.target} was begun by a run that differs: {'; '.join(differing)}; "
            "give the same arguments to go on with it, or --overwrite to start over"
        )

    def _intensity(self, header: Header | None) -> tuple[Intensity, dict[str, Any]]:
        """Given, or found by the run that began, or measured; with what is to be recorded of it."""
        if header is not None:
            mean, std = header.facts["intensity"]
            return Intensity(mean, std), header.facts
        if self.request.intensity is not None:
            given = self.request.intensity
            return given, {"intensity": [given.mean, given.std], "statistics": {"rule": "given"}}
        z, y, x = self.plan.seen.shape
        with self.reporter.bar("measuring", z * y * x) as advance:
            statistics = measure(self.plan.seen, advance)
        found = statistics.intensity
        self.reporter.say(f"intensity of the whole volume: mean {found.mean:.4g}, standard deviation {found.std:.4g}")
        for box in statistics.record.get("unreadable", ()):
            self.reporter.warn(f"{box} cannot be read and is left out of the statistics")
        return found, {"intensity": [found.mean, found.std], "statistics": statistics.record}

    def _computation(self, intensity: Intensity) -> Computation:
        plan, fill = self.plan, self.request.fill
        computation: Computation
        if plan.scale is None:
            dtype: Dtype = "float32" if plan.mask is not None else self.request.dtype  # a mask's fill is a probability
            computation = plan.predictor.bind(plan.seen, intensity, fill, dtype)
        else:
            rescaled = Rescaled(plan.seen, plan.scale)
            computation = RescaledComputation(plan.predictor.bind(rescaled, intensity, fill), rescaled)
        return computation if plan.mask is None else Masked(computation, plan.mask, fill or 0.0)

    def _map(self, output: Output, ledger: Ledger, intensity: Intensity) -> MapReport:
        """Compute and store what is not done yet."""
        tiling, roi = self.plan.tiling, self.plan.roi
        computation = self._computation(intensity)
        work = MapWork(self.request.target, output, ledger, 0, self.request.dtype, computation, tiling, roi.start)
        resumed = ledger.count()
        done = sum(box.voxels for n, box in enumerate(tiling.grid) if ledger.done(0, n)) if resumed else 0
        if resumed:
            self.reporter.say(
                f"{resumed} of {len(tiling.grid)} blocks were stored by an earlier run; going on from there"
            )
        self.follower.stored(resumed)
        waiting = Waiting()
        with self.reporter.bar("predicting", roi.voxels, waiting, done) as advance:
            pipeline = Pipeline(
                work,
                workers=self.plan.predictor.workers,
                advance=advance,
                recorded=lambda _: self.follower.stored(ledger.count()),
                waiting=waiting,
            )
            tally = pipeline.run(work.blocks(tiling.grid))
        missing = tuple(sorted(work.missing_blocks, key=lambda block: block.number))
        if self.request.fill_missing is not None:
            for block in missing:
                work.fill(block, self.request.fill_missing)
            self.follower.stored(ledger.count())
        return MapReport(
            voxels=roi.voxels - done - sum(block.box.voxels for block in missing),
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
            kept = (
                f"{stored} of {len(self.plan.tiling.grid)} blocks are stored, and the same command goes on from there"
            )
            if isinstance(error, KeyboardInterrupt):
                raise InterruptedRunError(f"interrupted; {kept}") from None
            if isinstance(error, EmboundaryError):
                error.args = (f"{error}; {kept}",)
            raise
