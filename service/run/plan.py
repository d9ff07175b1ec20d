"""Everything about a run that is known before its first block: what is read, how it is cut, what it may go on with."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from typing import Any

import numpy as np

from emboundary.model.geometry import Box
from emboundary.service.errors import UsageError
from emboundary.service.preparing.clahe import Clahe
from emboundary.service.preparing.voxel_size import factors as factors_to
from emboundary.service.preparing.voxel_size import mismatch
from emboundary.service.progress import Reporter
from emboundary.service.run.predictor import Predictor
from emboundary.service.run.request import MapRequest
from emboundary.service.run.roi import parse_roi
from emboundary.service.run.tiling import Tiling
from emboundary.service.volumes import MapSpec, SpaceAxes, Volume, check_output, open_volume
from emboundary.service.volumes.layout import Level, default_chunk, default_shard, plan_levels
from emboundary.service.volumes.place import was_published

# Beyond this a map would take longer than any machine lasts; metadata that say so are mostly damaged.
_MOST_VOXELS = 1 << 54


@dataclass(frozen=True)
class Plan:
    """One run, before it begins.

    Attributes:
        volume: INPUT.
        seen: INPUT as its intensities are measured: equalised, if that was asked for.
        mask: a volume of INPUT's shape that is 0 where nothing is computed.
        roi: the box of INPUT that is mapped.
        levels: resolutions of OUTPUT.
        tiling: of the map.
        scale: pixels that the network sees for one of INPUT, along (y, x); None: it sees INPUT as it is.
    """

    request: MapRequest
    predictor: Predictor
    volume: Volume
    seen: Volume | Clahe
    mask: Volume | None
    roi: Box
    levels: tuple[Level, ...]
    tiling: Tiling
    scale: tuple[float, float] | None

    @classmethod
    def prepare(cls, request: MapRequest, predictor: Predictor, reporter: Reporter, opened: ExitStack) -> Plan:
        """Open what is read, and refuse what does not fit, before anything is written.

        Args:
            request: what is asked for.
            predictor: the network.
            reporter: told about what may make the map worse.
            opened: closes what is read.

        Raises:
            UsageError: options that fit neither each other nor INPUT.
            InputError: INPUT or the mask is missing, damaged, or no volume of grey values.
            OutputError: OUTPUT cannot stand where it was asked to.
        """
        volume = opened.enter_context(
            open_volume(request.source, axes=request.axes, voxel_size_nm=request.voxel_size_nm)
        )
        roi = parse_roi(request.roi, volume.shape)
        if roi.voxels > _MOST_VOXELS:
            raise UsageError(
                f"the map would have {roi.voxels} voxels of shape (z, y, x) = {roi.shape}; at most {_MOST_VOXELS} are "
                "mapped in one run: give --roi, or mend the metadata of INPUT"
            )
        # Where a run was killed as it ended, its ledger tells whether it was this one: see prediction.
        replaceable = request.overwrite or was_published(request.target)
        check_output(request.target, roi.shape, request.dtype, overwrite=replaceable)
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
            mask = opened.enter_context(open_volume(request.mask, labels=True))
            if mask.shape != volume.shape:
                raise UsageError(
                    f"mask {request.mask} has shape (z, y, x) = {mask.shape}, INPUT has {volume.shape}; they must be "
                    "equal: give a mask on the grid of INPUT"
                )
        return cls(request, predictor, volume, seen, mask, roi, levels, tiling, scale)

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """Everything that decides about OUTPUT's bytes, as it was when it was first asked for."""
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

    def spec(self, facts: dict[str, Any]) -> MapSpec:
        """What is to be stored; ``facts`` were found out before the first block."""
        return MapSpec(
            self.roi.shape,
            self.request.dtype,
            _cropped(self.volume, self.roi),
            self._provenance(facts),
            self.levels,
            self.request.ome_zarr,
        )

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
        factors = factors_to(volume.voxel_size_nm, predictor.trained_voxel_sizes_nm)
        reporter.say(f"resampled for the network by {factors[0]:.4g} along y and {factors[1]:.4g} along x")
        return factors
    differing = mismatch(volume.voxel_size_nm, predictor.trained_voxel_sizes_nm)
    if differing is not None:
        reporter.warn(differing)
    return None


def _levels(request: MapRequest, roi: Box, axes: SpaceAxes) -> tuple[Level, ...]:
    """How OUTPUT is laid out, as asked for, or as suits viewers and file systems."""
    chunk = request.chunk or default_chunk(roi.shape, axes)
    shard = request.shard
    if shard is not None and request.ome_zarr == "0.4":
        raise UsageError("shard is given, but OME-Zarr 0.4 knows no shards: leave --shard out, or --ome-zarr 0.4")
    if shard is None and request.ome_zarr == "0.5":
        shard = default_shard(roi.shape, chunk)
    return plan_levels(roi.shape, axes, chunk, shard, pyramid=request.pyramid)


def _cropped(volume: Volume, roi: Box) -> SpaceAxes:
    z, y, x = (axis.cropped(start) for axis, start in zip(volume.axes, roi.start, strict=True))
    return z, y, x
