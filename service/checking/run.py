"""The check from beginning to end, within its time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emboundary.model.geometry import Box, Footprint, round_up
from emboundary.service.checking.estimate import Estimate, TilePass, estimate, time_tile
from emboundary.service.checking.grey_values import REFERENCE_DATA, compare
from emboundary.service.checking.laws import seam_error, symmetry_error, tolerance, turnable
from emboundary.service.checking.places import Place, Sample, read_sample, spread
from emboundary.service.checking.report import CheckReport, CheckRequest, GreyValues, Law, VolumeFacts
from emboundary.service.engine import OnnxEngine
from emboundary.service.errors import InputError
from emboundary.service.pace import mega
from emboundary.service.preparing.fill import fill_mask, fill_value
from emboundary.service.preparing.intensity import Intensity, measure
from emboundary.service.preparing.voxel_size import mismatch
from emboundary.service.progress import Reporter
from emboundary.service.run.roi import parse_roi
from emboundary.service.run.tiling import Tiling
from emboundary.service.volumes import Volume, open_volume
from emboundary.service.volumes.layout import default_chunk, default_shard, plan_levels

# Places that are tried to find some with contrast, how many of these are wanted, and on how many the laws are measured.
_TRIED, _PLACES, _LAW_PLACES = 256, 24, 8
# Sides of these places, in voxels; the larger one where the model is fast enough.
_SIDES = (512, 256, 128, 64, 32)
_SYMMETRY_SIDE = 256
# Volumes up to here are measured whole; beyond, on the sample.
_MEASURED_WHOLE = 1 << 26
# A run measures volumes up to the first figure whole, of larger ones about as many voxels as the second says.
_MEASURED_BY_A_RUN, _SAMPLED_BY_A_RUN = 1 << 30, 1 << 28
# Shares of the check's time for reading places, and for running one tile.
_READING, _TILE = 0.2, 0.25


def check(
    request: CheckRequest, engine: OnnxEngine, reporter: Reporter, clock: Callable[[], float] = time.perf_counter
) -> CheckReport:
    """Try a model on a few places of a volume.

    Raises:
        UsageError: a ROI, axes or voxel size that do not fit.
        InputError: INPUT is missing, damaged wherever it was read, without any contrast, or no volume of grey values.
        DeviceError: the runtime failed.
    """
    began = clock()
    with open_volume(request.source, axes=request.axes, voxel_size_nm=request.voxel_size_nm) as volume:
        return _Check(request, engine, volume, reporter, clock, began).run()


class _Check:
    """One check, step by step; what cannot be read is kept and passed over, while there is something else.

    Attributes:
        faults: what was wrong with each read that failed.
    """

    def __init__(
        self,
        request: CheckRequest,
        engine: OnnxEngine,
        volume: Volume,
        reporter: Reporter,
        clock: Callable[[], float],
        began: float,
    ) -> None:
        self._request, self._engine, self._volume = request, engine, volume
        self._reporter, self._clock, self._began = reporter, clock, began
        self._deadline = began + request.seconds
        self._roi = parse_roi(request.roi, volume.shape)
        # As a run with the defaults would cut it: into an OME-Zarr of uint8.
        chunk = default_chunk(self._roi.shape, volume.axes)
        shard = default_shard(self._roi.shape, chunk)
        self._levels = plan_levels(self._roi.shape, volume.axes, chunk, shard, pyramid=True)
        self._tiling = Tiling.plan(
            self._roi.shape,
            self._levels[0].unit,
            engine.footprint,
            request.tile,
            input_bytes=volume.dtype.itemsize,
        )
        self.faults: list[str] = []

    def run(self) -> CheckReport:
        """All steps."""
        described = self._engine.description
        sample = self._sample()
        intensity, basis = self._intensity(sample)
        one = self._tile_pass(sample, intensity)
        seams, symmetry = self._laws(sample, intensity, one)
        comparison = None
        if any(data.name == REFERENCE_DATA for data in described.training):
            comparison = compare(_data(self._volume, sample), intensity)
        return CheckReport(
            volume=_facts(self._volume, self._roi),
            trained_voxel_sizes_nm=described.trained_voxel_sizes_nm,
            mismatch=mismatch(self._volume.voxel_size_nm, described.trained_voxel_sizes_nm),
            grey_values=GreyValues(intensity.mean, intensity.std, basis, comparison),
            sampled_places=sample.tried,
            constant_places=sample.constant,
            unreadable=tuple(self.faults),
            seams=seams,
            symmetry=symmetry,
            described_symmetry_error=described.symmetry.error,
            estimate=self._estimate(sample, one),
            check_seconds=self._clock() - self._began,
        )

    def _sample(self) -> Sample:
        self._reporter.say(f"reading places of {self._volume.where}")
        boxes = spread(self._roi, _SIDES[0], _TRIED)
        until = self._clock() + _READING * self._request.seconds
        sample = read_sample(self._volume, self._volume.chunks, boxes, _PLACES, self._clock, until)
        self.faults += sample.faults
        if not sample.places:
            raise InputError(
                f"{self._volume.where} is constant at all {sample.constant} places that were looked at within "
                f"{self._roi}, so there is nothing to try a model on; give --roi Z0:Z1,Y0:Y1,X0:X1 around tissue"
            )
        return sample

    def _intensity(self, sample: Sample) -> tuple[Intensity, str]:
        """What voxel values are normalised by, and where that comes from."""
        if self._request.intensity is not None:
            return self._request.intensity, "as given"
        if math.prod(self._volume.shape) <= _MEASURED_WHOLE:
            try:
                statistics = measure(self._volume)
                unreadable = statistics.record.get("unreadable", [])
                self.faults += [f"{self._volume.where} cannot be read at {box}" for box in unreadable]
                return statistics.intensity, "of the whole volume"
            except InputError as error:
                self._note(error)
        values = np.concatenate([place.values for place in sample.places])
        basis = f"of a sample of {mega(values.size)}voxel (a run measures more, and passes over the fill value)"
        return measure(values).intensity, basis

    def _tile_pass(self, sample: Sample, intensity: Intensity) -> TilePass:
        """One tile around the first place around which a whole one can be read, or else one section of it."""
        self._reporter.say("running one tile")
        _, y, x = self._tiling.tile
        for tile, place in product((self._tiling.tile, (1, y, x)), sample.places):
            try:
                return time_tile(
                    self._engine,
                    self._volume,
                    self._roi,
                    place.centre,
                    tile,
                    intensity,
                    tta=self._request.tta,
                    clock=self._clock,
                    seconds=_TILE * self._request.seconds,
                )
            except InputError as error:
                self._note(error)
        raise InputError(self.faults[-1])

    def _note(self, error: InputError) -> None:
        """Keep a fault, once."""
        if str(error) not in self.faults:
            self.faults.append(str(error))

    def _laws(self, sample: Sample, intensity: Intensity, one: TilePass) -> tuple[Law, Law]:
        """Seams and symmetry on one place after another, while there is time for another; on one at least."""
        self._reporter.say(f"measuring seams and symmetry on up to {_LAW_PLACES} places")
        engine, tta = self._engine, self._request.tta
        side = affordable_side(engine.footprint, one, self._deadline - self._clock())
        seams: list[float] = []
        turned: list[float] = []
        took = 0.0
        for place in sample.places:
            began = self._clock()
            if len(seams) == _LAW_PLACES or (seams and began + took > self._deadline):
                break
            try:
                seams.append(seam_error(engine, self._volume, _part(place, side), intensity, tta=tta))
            except InputError as error:  # the place can be read, what lies around it cannot
                self._note(error)
                continue
            values = turnable(place.values, engine.footprint, min(side, _SYMMETRY_SIDE))
            if values is not None:
                turned.append(symmetry_error(engine, values, intensity, tta=tta))
            took = self._clock() - began
        if not seams:
            raise InputError(self.faults[-1])
        allowed = tolerance(engine.description, engine.precision)
        promised = allowed if engine.description.symmetry.group == "D4" else None
        return (
            Law(len(seams), side, max(seams), allowed),
            Law(len(turned), min(side, _SYMMETRY_SIDE), max(turned, default=0.0), promised),
        )

    def _estimate(self, sample: Sample, one: TilePass) -> Estimate:
        measured = math.prod(self._volume.shape)
        if self._request.intensity is not None:
            measured = 0
        elif measured > _MEASURED_BY_A_RUN:
            measured = _SAMPLED_BY_A_RUN
        return estimate(
            self._tiling,
            self._engine.footprint,
            one,
            read_voxels_per_second=sample.voxels_per_second,
            measured_voxels=measured,
            itemsize=self._volume.dtype.itemsize,
            # All chunks of all levels full, and nothing compressed.
            output_bytes=sum(
                math.prod(round_up(n, c) for n, c in zip(level.shape, level.chunk, strict=True))
                for level in self._levels
            ),
        )


def affordable_side(footprint: Footprint, one: TilePass, seconds: float) -> int:
    """The largest side at which a third of the time is enough for one place."""
    halo = footprint.halo[1]

    def pixels(side: int) -> int:
        turned = min(side, _SYMMETRY_SIDE)
        return (side + 2 * halo) ** 2 + 9 * (side // 3 + 2 * halo) ** 2 + 8 * (turned + 2 * halo) ** 2

    affordable = (side for side in _SIDES if pixels(side) / one.pixels_per_second <= seconds / 3)
    return next(affordable, _SIDES[-1])


def _part(place: Place, side: int) -> Box:
    (z, y, x), (_, high, wide) = place.box.start, place.box.shape
    return Box((z, y, x), (z + 1, y + min(side, high), x + min(side, wide)))


def _data(volume: Volume, sample: Sample) -> list[NDArray[Any]]:
    """Voxel values of the places, without the fill that the statistics leave out as well."""
    fill = fill_value(volume)
    masks = [fill_mask(place.values, fill) for place in sample.places]
    data = [p.values if mask is None else p.values[~mask] for p, mask in zip(sample.places, masks, strict=True)]
    return data if any(part.size for part in data) else [place.values for place in sample.places]


def _facts(volume: Volume, roi: Box) -> VolumeFacts:
    axes = ", ".join(f"{axis.name} ({axis.unit})" if axis.unit else axis.name for axis in volume.axes)
    size = volume.voxel_size_nm
    return VolumeFacts(volume.where, volume.shape, str(volume.dtype), axes, volume.chunks, size, roi)
