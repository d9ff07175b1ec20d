"""Maps as OME-Zarr 0.5: one group, one level, axes, voxel size and origin carried over."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import zarr
from numpy.typing import NDArray
from yaozarrs import v05

from emboundary.model.geometry import Box
from emboundary.service.volumes.output import Output

_LEVEL = "0"
_ATTRIBUTE = "emboundary"


class ZarrOutput(Output):
    """An OME-Zarr image; blocks that are whole multiples of the chunks can be written in any order."""

    def _begin(self, data: Path) -> None:
        spec = self._spec
        attributes = {"ome": self._image().model_dump(mode="json", exclude_none=True), _ATTRIBUTE: spec.provenance}
        group = zarr.create_group(store=data, zarr_format=3, attributes=attributes)
        self._array: zarr.Array[Any] = group.create_array(
            _LEVEL,
            shape=spec.shape,
            dtype=spec.dtype,
            chunks=spec.chunks,
            dimension_names=[axis.name for axis in spec.axes],
            fill_value=0,
        )

    def _store(self, box: Box, encoded: NDArray[Any]) -> None:
        self._array[box.slices] = encoded

    def _finish(self) -> None:
        """Every block is stored by the time ``write`` returns."""

    def _image(self) -> v05.Image:
        axes = self._spec.axes
        level = v05.Dataset(
            path=_LEVEL,
            coordinateTransformations=[
                v05.ScaleTransformation(scale=[1.0 if axis.scale is None else axis.scale for axis in axes]),
                v05.TranslationTransformation(translation=[axis.origin for axis in axes]),
            ],
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a unit that OME-Zarr does not list is carried over all the same
            space = [v05.SpaceAxis(name=axis.name, unit=axis.unit) for axis in axes]
            return v05.Image(multiscales=[v05.Multiscale(name=self.path.stem, axes=space, datasets=[level])])
