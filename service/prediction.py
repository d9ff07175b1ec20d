"""One run from INPUT to OUTPUT: the same steps for a network here and for one behind a URL."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from emboundary.model.geometry import Box, Readable, Triple
from emboundary.service.engine import OnnxEngine
from emboundary.service.errors import UsageError
from emboundary.service.inference import Compute, predict_box, run_blocks
from emboundary.service.intensity import Intensity, measure
from emboundary.service.progress import Reporter
from emboundary.service.roi import parse_roi
from emboundary.service.tiling import Tiling
from emboundary.service.volumes import Dtype, MapSpec, SpaceAxes, Volume, check_output, create_output, open_volume

# A GPU is done with a block so soon that more sections at once pay; on a CPU small blocks keep the bar moving.
_BLOCK_VOXELS = {"cpu": 1 << 22, "cuda": 1 << 24}


@dataclass(frozen=True)
class MapRequest:
    """What is to be mapped, and where to.

    Attributes:
        source: INPUT, a path or URL.
        target: OUTPUT, by suffix.
        axes: names of INPUT's axes where it does not say them, e.g. ``zyx``.
        roi: ``Z0:Z1,Y0:Y1,X0:X1`` in voxels; None: the whole volume.
        tile: side of a block in y and x, in voxels.
        dtype: of OUTPUT.
        intensity: statistics to normalise by; None: measured over the whole of INPUT.
        overwrite: whether OUTPUT may be replaced.
    """

    source: str
    target: Path
    axes: str | None = None
    roi: str | None = None
    tile: int | None = None
    dtype: Dtype = "uint8"
    intensity: Intensity | None = None
    overwrite: bool = False


class Predictor(Protocol):
    """A network, here or elsewhere."""

    def plan(self, shape: Triple, dtype: np.dtype[Any], tile: int | None, depth: int) -> Tiling:
        """Cut a map of a shape, of voxels of a type, into blocks."""
        ...

    def compute(self, volume: Readable, intensity: Intensity) -> Compute:
        """The function that gives the probabilities of a box of the volume."""
        ...

    def provenance(self) -> dict[str, Any]:
        """Which network computes, on what, and how: JSON values."""
        ...


@dataclass(frozen=True)
class LocalPredictor:
    """A network in this process."""

    engine: OnnxEngine
    tta: bool = False

    def plan(self, shape: Triple, dtype: np.dtype[Any], tile: int | None, depth: int) -> Tiling:  # noqa: ARG002
        """Cut a map into blocks that suit the device."""
        voxels = _BLOCK_VOXELS[self.engine.device]
        return Tiling.plan(shape, self.engine.footprint.stride, tile, depth=depth, block_voxels=voxels)

    def compute(self, volume: Readable, intensity: Intensity) -> Compute:
        """The function that gives the probabilities of a box of the volume."""
        return lambda box: predict_box(self.engine, volume, box, intensity, tta=self.tta)

    def provenance(self) -> dict[str, Any]:
        """Model, version and hash, device, precision, and whether 8 orientations are averaged."""
        description = self.engine.description
        return {
            "model": description.name,
            "model_version": description.version,
            "model_sha256": description.sha256,
            "device": self.engine.device,
            "precision": self.engine.precision,
            "tta": self.tta,
        }


@dataclass(frozen=True)
class MapReport:
    """What a run did.

    Attributes:
        voxels: stored in OUTPUT.
        seconds: from opening INPUT to the last byte stored.
        blocks_done: computed and stored by this run.
        blocks_skipped: found stored by an earlier run.
        intensity: what voxel values were normalised by.
    """

    voxels: int
    seconds: float
    blocks_done: int
    blocks_skipped: int
    intensity: Intensity

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
        OutputError: OUTPUT exists, cannot be written, or does not fit on the disk.
    """
    _refuse_same(request.source, request.target)
    began = clock()
    with open_volume(request.source, axes=request.axes) as volume:
        roi = parse_roi(request.roi, volume.shape)
        check_output(request.target, roi.shape, request.dtype, overwrite=request.overwrite)
        tiling = predictor.plan(roi.shape, volume.dtype, request.tile, volume.chunks[0])
        intensity = request.intensity or _measured(volume, reporter)
        spec = MapSpec(
            roi.shape,
            request.dtype,
            tiling.chunk,
            _cropped(volume, roi),
            _provenance(request, predictor, roi, tiling, intensity),
        )
        compute = _from_roi(predictor.compute(volume, intensity), roi)
        with create_output(request.target, spec, overwrite=request.overwrite) as output:
            if output.replaces_leftover:
                reporter.say(f"an unfinished {request.target} of an earlier run was removed; starting over")
            with reporter.bar("predicting", roi.voxels) as advance:
                blocks = run_blocks(tiling.grid, compute, output, advance)
            output.commit()
    return MapReport(roi.voxels, clock() - began, blocks, 0, intensity)


def _measured(volume: Volume, reporter: Reporter) -> Intensity:
    z, y, x = volume.shape
    with reporter.bar("measuring", z * y * x) as advance:
        intensity = measure(volume, advance)
    reporter.say(f"intensity of the whole volume: mean {intensity.mean:.4g}, standard deviation {intensity.std:.4g}")
    return intensity


def _from_roi(compute: Compute, roi: Box) -> Compute:
    """``compute`` for boxes that are counted from the ROI's first voxel."""
    z, y, x = roi.start
    return lambda box: compute(box.relative_to((-z, -y, -x)))


def _cropped(volume: Volume, roi: Box) -> SpaceAxes:
    z, y, x = (axis.cropped(start) for axis, start in zip(volume.axes, roi.start, strict=True))
    return z, y, x


def _provenance(
    request: MapRequest, predictor: Predictor, roi: Box, tiling: Tiling, intensity: Intensity
) -> dict[str, Any]:
    return {
        "emboundary_version": version("emboundary"),
        "content": "boundary probability; uint8 stores round(255 p)",
        **predictor.provenance(),
        "input": request.source,
        "roi": str(roi),
        "block": list(tiling.block),
        "intensity": [intensity.mean, intensity.std],
    }


def _refuse_same(source: str, target: Path) -> None:
    """Refuse an OUTPUT that is INPUT, or a folder that holds it: replacing it would destroy INPUT."""
    place = Path(source.rpartition("::")[0] or source).resolve()
    if "://" not in source and target.resolve() in (place, *place.parents):
        raise UsageError(f"OUTPUT {target} is INPUT, or holds it; give another OUTPUT")
