"""What a user asks of one run, checked and in one piece."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from emboundary.model.geometry import Triple
from emboundary.service.errors import UsageError
from emboundary.service.preparing.intensity import Intensity
from emboundary.service.volumes import Dtype

OmeZarr = Literal["0.4", "0.5"]


@dataclass(frozen=True)
class MapRequest:
    """What is to be mapped, how, and where to.

    Attributes:
        source: INPUT, a path or URL.
        target: OUTPUT, by suffix.
        axes: names of INPUT's axes where it does not say them, e.g. ``zyx``.
        voxel_size_nm: (z, y, x) of INPUT where it does not say it.
        roi: ``Z0:Z1,Y0:Y1,X0:X1`` in voxels; None: the whole volume.
        tile: a tile with its halo holds as many pixels as a square of this side with its halo.
        dtype: of OUTPUT.
        intensity: statistics to normalise by; None: measured over the whole of INPUT.
        overwrite: whether OUTPUT, or an unfinished run with other arguments, may be replaced.
        chunk: shape (z, y, x) of OUTPUT's chunks; None: one that suits viewers.
        shard: shape (z, y, x) of OUTPUT's shards; None: none, unless there would be very many chunks.
        ome_zarr: version of OME-Zarr to write.
        pyramid: whether an OME-Zarr OUTPUT gets its coarser levels.
        mask: path or URL of a volume of INPUT's shape; the map is ``fill`` where it is 0.
        fill: probability outside the mask (0 where None) and, where given, in constant parts of INPUT.
        fill_missing: probability for blocks that cannot be read; None: such a run stays unfinished.
        clahe: whether to equalise every section by contrast-limited adaptive histogram equalisation.
        rescale: whether to show the network the voxel size that it was trained on.

    Raises:
        UsageError: a value outside its range.
    """

    source: str
    target: Path
    axes: str | None = None
    voxel_size_nm: tuple[float, float, float] | None = None
    roi: str | None = None
    tile: int | None = None
    dtype: Dtype = "uint8"
    intensity: Intensity | None = None
    overwrite: bool = False
    chunk: Triple | None = None
    shard: Triple | None = None
    ome_zarr: OmeZarr = "0.5"
    pyramid: bool = True
    mask: str | None = None
    fill: float | None = None
    fill_missing: float | None = None
    clahe: bool = False
    rescale: bool = False

    def __post_init__(self) -> None:
        for name, value in (("fill", self.fill), ("fill-missing", self.fill_missing)):
            if value is not None and not 0 <= value <= 1:
                raise UsageError(f"{name} is {value:g}; it is a probability and must be between 0 and 1")
        # A loop of links leads nowhere, and is found where it is opened; Path.resolve would fail on it here.
        place, target = (
            Path(os.path.realpath(p)) for p in (self.source.rpartition("::")[0] or self.source, self.target)
        )
        if "://" not in self.source and target in (place, *place.parents):
            raise UsageError(f"OUTPUT {self.target} is INPUT, or holds it; give another OUTPUT")


@dataclass(frozen=True, kw_only=True)
class TypedRequest:
    """A ``MapRequest`` as people type it, on the command line or in the JSON of a job: the same names, and texts.

    Attributes:
        voxel_size: ``Z,Y,X`` in nm.
        intensity: ``MEAN,STD`` in voxel values.
        chunk: ``Z,Y,X`` in voxels.
        shard: ``Z,Y,X`` in voxels.
    """

    source: str
    target: Path
    roi: str | None
    tile: int | None
    dtype: Dtype
    intensity: str | None
    axes: str | None
    voxel_size: str | None
    chunk: str | None
    shard: str | None
    ome_zarr: OmeZarr
    pyramid: bool
    mask: str | None
    fill: float | None
    fill_missing: float | None
    clahe: bool
    rescale: bool
    overwrite: bool

    def read(self) -> MapRequest:
        """The request.

        Raises:
            UsageError: an option that is malformed or out of range.
        """
        return MapRequest(
            source=self.source,
            target=self.target,
            axes=self.axes,
            voxel_size_nm=parse_voxel_size(self.voxel_size),
            roi=self.roi,
            tile=self.tile,
            dtype=self.dtype,
            intensity=None if self.intensity is None else Intensity.parse(self.intensity),
            overwrite=self.overwrite,
            chunk=parse_extents("chunk", self.chunk),
            shard=parse_extents("shard", self.shard),
            ome_zarr=self.ome_zarr,
            pyramid=self.pyramid,
            mask=self.mask,
            fill=self.fill,
            fill_missing=self.fill_missing,
            clahe=self.clahe,
            rescale=self.rescale,
        )


def parse_extents(name: str, text: str | None) -> Triple | None:
    """Read ``Z,Y,X`` in voxels.

    Raises:
        UsageError: not three whole numbers above 0.
    """
    if text is None:
        return None
    try:
        z, y, x = (int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"{name} is {text!r}; it must be Z,Y,X in whole voxels, e.g. 16,128,128") from None
    if min(z, y, x) < 1:
        raise UsageError(f"{name} is {text}; every extent must be at least 1 voxel")
    return z, y, x


def parse_voxel_size(text: str | None) -> tuple[float, float, float] | None:
    """Read ``Z,Y,X`` in nm.

    Raises:
        UsageError: not three positive, finite numbers.
    """
    if text is None:
        return None
    try:
        z, y, x = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"voxel size is {text!r}; it must be Z,Y,X in nm, e.g. 50,4,4") from None
    if not all(math.isfinite(n) and n > 0 for n in (z, y, x)):
        raise UsageError(f"voxel size is {text}; every extent must be finite and above 0 nm")
    return z, y, x
