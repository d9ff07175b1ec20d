"""Volumes on disk: reading parts of them, and writing maps that look whole only when they are."""

from emboundary.service.probabilities import Dtype
from emboundary.service.volumes.axes import SpaceAxes
from emboundary.service.volumes.creating import check_output, create_output
from emboundary.service.volumes.opening import open_volume
from emboundary.service.volumes.output import MapSpec, Output
from emboundary.service.volumes.volume import Volume

__all__ = ["Dtype", "MapSpec", "Output", "SpaceAxes", "Volume", "check_output", "create_output", "open_volume"]
