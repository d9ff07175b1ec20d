"""Maps as HDF5: one dataset ``/boundary`` in one piece, with voxel size, axes and provenance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py

from emboundary.service.volumes.flat_output import FlatOutput

DATASET = "boundary"
# Understood by ilastik, the Fiji HDF5 plug-in and PlantSeg: extent of a voxel in z, y, x.
_ELEMENT_SIZE = "element_size_um"
_PROVENANCE = "emboundary"


class Hdf5Output(FlatOutput):
    """An HDF5 file with one dataset, allocated when it is created."""

    def _create(self, file: Path) -> int:
        spec = self._spec
        with h5py.File(file, "w") as created:
            # Allocated now, so that it has a place; never filled, so that it stays sparse until it is written.
            plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            plan.set_layout(h5py.h5d.CONTIGUOUS)
            plan.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            plan.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
            plan.set_obj_track_times(False)
            space = h5py.h5s.create_simple(spec.shape)
            kind = h5py.h5t.py_create(self._dtype)
            dataset = h5py.Dataset(h5py.h5d.create(created.id, DATASET.encode(), kind, space, plan))
            for dimension, axis in zip(dataset.dims, spec.axes, strict=True):
                dimension.label = axis.name
            sizes = [axis.voxel_size_nm for axis in spec.axes]
            if None not in sizes:
                dataset.attrs[_ELEMENT_SIZE] = [size / 1000 for size in sizes if size is not None]
            return int(dataset.id.get_offset())

    def _annotate(self, provenance: dict[str, Any]) -> None:
        with h5py.File(self._data, "r+") as file:
            file[DATASET].attrs[_PROVENANCE] = json.dumps(provenance)
