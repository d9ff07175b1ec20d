"""Maps as OME-Zarr: 0.5 on Zarr v3, or 0.4 on Zarr v2, with a pyramid, axes, voxel size and origin."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, ZstdCodec

from emboundary.model.geometry import Box
from emboundary.service.errors import OutputError
from emboundary.service.volumes.layout import Level
from emboundary.service.volumes.ome_zarr import attributes
from emboundary.service.volumes.output import MapSpec, Output, damaged, sync_file_system
from emboundary.service.volumes.place import remove, storing

# What ``zarr.storage.LocalStore`` calls a file until it is whole.
_TEMPORARY = re.compile(r".*\.[0-9a-f]{32}\.partial")


class ZarrOutput(Output):
    """An OME-Zarr image; every chunk or shard is written in one step, chunks of nothing but zero not at all."""

    def __init__(self, data: Path, spec: MapSpec, *, resume: bool) -> None:
        super().__init__(data, spec)
        with storing(self._path, kept=resume):
            if resume:
                if not data.exists():
                    raise OutputError(damaged(self._path, data, "its unfinished map is gone"))
                sweep(data)
            else:
                self._create()
            self._group = zarr.open_group(data, mode="r+", zarr_format=_zarr_format(spec))
            # Open from here on, so that ``flush`` hears of every error of the disk.
            self._descriptor = os.open(data, os.O_RDONLY | os.O_CLOEXEC)
        self._arrays = [self._open_level(level) for level in self.levels]

    def _create(self) -> None:
        """Create all metadata under another name, so that a map that is there has them."""
        begun = self._data.with_name("begun")
        remove(begun)
        group = zarr.create_group(
            store=begun, zarr_format=_zarr_format(self._spec), attributes=attributes(self._spec, self._path.stem)
        )
        for level in self.levels:
            self._create_level(group, level)
        remove(self._data)
        begun.rename(self._data)

    def _create_level(self, group: zarr.Group, level: Level) -> None:
        v3 = self._spec.ome_zarr == "0.5"
        group.create_array(
            level.path,
            shape=level.shape,
            dtype=self._spec.dtype,
            chunks=level.chunk,
            shards=level.shard,
            compressors=_compressor(self._spec),
            chunk_key_encoding=None if v3 else {"name": "v2", "separator": "/"},
            dimension_names=[axis.name for axis in self._spec.axes] if v3 else None,
            fill_value=0,
        )

    def _open_level(self, level: Level) -> zarr.Array[Any]:
        array = self._group[level.path]
        if (
            not isinstance(array, zarr.Array)
            or (array.shape, array.chunks, array.shards) != (level.shape, level.chunk, level.shard)
            or array.dtype != self._spec.dtype
        ):
            raise OutputError(damaged(self._path, self._data, f"level {level.path} is not what this run would write"))
        return array

    def _store(self, box: Box, encoded: NDArray[Any], level: int) -> None:
        self._arrays[level][box.slices] = encoded

    def _load(self, box: Box, level: int) -> NDArray[Any]:
        return np.asarray(self._arrays[level][box.slices])

    def _sync(self) -> None:
        sync_file_system(self._descriptor)

    def _complete(self, provenance: dict[str, Any]) -> None:
        self._group.attrs["emboundary"] = provenance

    def close(self) -> None:
        """Let go of the folder; safe to repeat."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def sweep(data: Path) -> None:
    """Remove the files that zarr had begun and not yet given their names when its process was killed."""
    for folder, _, names in os.walk(data):
        for name in names:
            if _TEMPORARY.fullmatch(name):
                Path(folder, name).unlink()


def _compressor(spec: MapSpec) -> Any:
    """What stores boundary maps small and fast (docs/benchmarks): zstd, its bits transposed for floats.

    A checksum makes readers notice damage; readers of Zarr v2 that are older than the option would refuse it.
    """
    if spec.dtype == "uint8":
        return ZstdCodec(level=1, checksum=True) if spec.ome_zarr == "0.5" else {"id": "zstd", "level": 1}
    if spec.ome_zarr == "0.5":
        return BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle")
    return {"id": "blosc", "cname": "zstd", "clevel": 1, "shuffle": 2, "blocksize": 0}


def _zarr_format(spec: MapSpec) -> Any:
    return 3 if spec.ome_zarr == "0.5" else 2
