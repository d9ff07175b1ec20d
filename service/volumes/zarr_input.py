"""Zarr arrays (v2, v3) and OME-Zarr images (0.4, 0.5), on disk or behind a URL."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import zarr
from pydantic import ValidationError
from yaozarrs import v04, v05
from zarr.errors import GroupNotFoundError, NodeNotFoundError

from emboundary.service.errors import InputError, first_line
from emboundary.service.volumes.axes import Axis, canonical_unit
from emboundary.service.volumes.bounds import refuse_large
from emboundary.service.volumes.source import Source
from emboundary.service.volumes.storage import Folder, digest
from emboundary.service.volumes.zarr_store import Bounds, open_store

_INDEX_BYTES = 16
_DOCUMENTS = ("zarr.json", ".zarray", ".zgroup", ".zattrs")

Multiscale = v04.Multiscale | v05.Multiscale


def open_zarr(folder: Folder, documents: Mapping[str, bytes]) -> Source:
    """Open a Zarr array, or level 0 of an OME-Zarr image.

    Args:
        folder: local, or behind a URL that fsspec knows.
        documents: the folder's own ``zarr.json``, ``.zarray``, ``.zgroup`` and ``.zattrs``, as far as it has them.

    Raises:
        InputError: a group without an image, or metadata that break the rules of Zarr or OME-Zarr.
    """
    where = folder.where
    store = open_store(where)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what a later zarr-python will do, or does not know: it reads or raises
            node = zarr.open(store, mode="r")
            if isinstance(node, zarr.Array):
                names = getattr(node.metadata, "dimension_names", None) or [None] * node.ndim
                return _source(
                    where, store.bounds, node, tuple(Axis((name or "").lower()) for name in names), documents
                )
            return _open_image(folder, store.bounds, node, documents)
    except (NodeNotFoundError, GroupNotFoundError, FileNotFoundError):
        raise InputError(
            f"{where} holds neither a Zarr array nor a Zarr group; give the folder that has its metadata"
        ) from None
    except InputError:
        raise
    except Exception as error:  # metadata can be wrong in as many ways as there are codecs and stores
        raise InputError(f"{where} cannot be opened as Zarr: {first_line(error)}; mend its metadata") from error


def _open_image(folder: Folder, bounds: Bounds, group: zarr.Group, documents: Mapping[str, bytes]) -> Source:
    where = folder.where
    multiscale = _multiscale(where, group)
    level = multiscale.datasets[0]
    array = group.get(level.path)
    if not isinstance(array, zarr.Array):
        raise InputError(f"{where} names {level.path!r} as its full resolution, but holds no such array: copy it again")
    if array.ndim != len(multiscale.axes):
        raise InputError(
            f"{where} names {len(multiscale.axes)} axes for an array of shape {array.shape}: mend its metadata"
        )
    scale, origin = _transform(level, array.ndim)
    outer_scale, outer_origin = _transform(multiscale, array.ndim)
    axes = tuple(
        Axis(axis.name.lower(), a * outer_a, canonical_unit(getattr(axis, "unit", None)), b * outer_a + outer_b)
        for axis, a, b, outer_a, outer_b in zip(multiscale.axes, scale, origin, outer_scale, outer_origin, strict=True)
    )
    level_documents = read_documents(folder, level.path)
    return _source(where, bounds, array, axes, {**documents, **level_documents})


def _multiscale(where: str, group: zarr.Group) -> Multiscale:
    attributes: dict[str, Any] = group.attrs.asdict()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what SHOULD be there and is not does not keep us from reading
            if "multiscales" in attributes.get("ome", {}):
                return v05.Image.model_validate(attributes["ome"]).multiscales[0]
            if "multiscales" in attributes:
                return v04.Image.model_validate(attributes).multiscales[0]
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"{where} is no valid OME-Zarr 0.4 or 0.5 image: {place}: {first['msg'].splitlines()[0]}; give the path of "
            "the array inside it, with --axes"
        ) from error
    members = sorted(name for name, _ in group.members())
    raise InputError(
        f"{where} is a Zarr group without an OME-Zarr image; give the path of one of its members: "
        f"{', '.join(members[:8]) or 'it has none'}"
    )


def _transform(described: Any, ndim: int) -> tuple[list[float], list[float]]:
    """Scale and translation of a dataset, or of a whole multiscale image."""
    scale, translation = [1.0] * ndim, [0.0] * ndim
    for transform in described.coordinateTransformations or ():
        if transform.type == "scale":
            scale = list(transform.scale)
        else:
            translation = list(transform.translation)
    return scale, translation


def read_documents(folder: Folder, inside: str = "") -> dict[str, bytes]:
    """The metadata documents of the node at ``inside``, by name.

    Raises:
        InputError: one that is too large, or cannot be read.
    """
    prefix = f"{inside}/" if inside else ""
    found = {prefix + name: folder.read(prefix + name) for name in _DOCUMENTS}
    return {name: content for name, content in found.items() if content is not None}


def _source(
    where: str, bounds: Bounds, array: zarr.Array[Any], axes: tuple[Axis, ...], documents: Mapping[str, bytes]
) -> Source:
    itemsize = array.dtype.itemsize
    outer = array.shards or array.chunks
    # 16 bytes of index for each chunk of a shard are read with any of them.
    within = tuple(-(-shard // chunk) for shard, chunk in zip(outer, array.chunks, strict=True))
    refuse_large(where, "shard with an index", within, _INDEX_BYTES)
    index = math.prod(within) * _INDEX_BYTES
    bounds.expect(math.prod(outer) * itemsize, math.prod(array.chunks) * itemsize, index)
    return Source(
        where,
        array,
        array.chunks,
        axes,
        decoded=array.chunks,
        fill_value=_fill_value(array.fill_value),
        state={"metadata_sha256": digest(documents)},
    )


def _fill_value(value: Any) -> float:
    if isinstance(value, np.generic) and value.dtype.kind in "iuf" and np.isfinite(value):
        return cast(float, value.item())
    return 0
