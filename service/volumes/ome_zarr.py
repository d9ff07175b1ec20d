"""What an OME-Zarr group says of its levels: axes, scales and origins, in the words of 0.4 or 0.5."""

from __future__ import annotations

import warnings
from types import ModuleType
from typing import Any

from yaozarrs import v04, v05

from emboundary.service.volumes.axes import Axis
from emboundary.service.volumes.layout import Level
from emboundary.service.volumes.output import MapSpec

_ATTRIBUTE = "emboundary"


def attributes(spec: MapSpec, name: str) -> dict[str, Any]:
    """The attributes of the group that holds a map.

    Args:
        spec: of the map.
        name: of the image.
    """
    words = v05 if spec.ome_zarr == "0.5" else v04
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a unit that OME-Zarr does not list is carried over all the same
        multiscale = words.Multiscale(
            name=name,
            axes=[words.SpaceAxis(name=axis.name, unit=axis.unit) for axis in spec.axes],
            datasets=[_dataset(words, spec, level) for level in spec.levels],
            type="mean",
        )
        image = words.Image(multiscales=[multiscale])
    described: dict[str, Any] = image.model_dump(mode="json", exclude_none=True)
    inside = {"ome": described} if spec.ome_zarr == "0.5" else described
    return {**inside, _ATTRIBUTE: spec.provenance}


def _dataset(words: ModuleType, spec: MapSpec, level: Level) -> Any:
    pairs = list(zip(spec.axes, level.factors, strict=True))
    return words.Dataset(
        path=level.path,
        coordinateTransformations=[
            words.ScaleTransformation(scale=[_scale(axis) * factor for axis, factor in pairs]),
            words.TranslationTransformation(translation=[_origin(axis, factor) for axis, factor in pairs]),
        ],
    )


def _scale(axis: Axis) -> float:
    return 1.0 if axis.scale is None else axis.scale


def _origin(axis: Axis, factor: int) -> float:
    """Where the first voxel's centre is: in the middle of the voxels of level 0 that it is the mean of."""
    return axis.origin + (factor - 1) / 2 * _scale(axis)
