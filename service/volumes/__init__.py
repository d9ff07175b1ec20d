"""Volumes on disk: reading parts of them, and writing maps that look whole only when they are."""

from emboundary.service.probabilities import Dtype
from emboundary.service.volumes.axes import SpaceAxes
from emboundary.service.volumes.creating import check_output, open_map
from emboundary.service.volumes.layout import (
    Level,
    default_chunk,
    default_shard,
    downsample,
    plan_levels,
)
from emboundary.service.volumes.opening import open_volume
from emboundary.service.volumes.output import MapSpec, OmeZarr, Output
from emboundary.service.volumes.place import Place, storing
from emboundary.service.volumes.volume import Volume

__all__ = [
    "Dtype",
    "Level",
    "MapSpec",
    "OmeZarr",
    "Output",
    "Place",
    "SpaceAxes",
    "Volume",
    "check_output",
    "default_chunk",
    "default_shard",
    "downsample",
    "open_map",
    "open_volume",
    "plan_levels",
    "storing",
]
