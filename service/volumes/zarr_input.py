"""Zarr arrays (v2, v3) and OME-Zarr images (0.4, 0.5), on disk or behind a URL."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import zarr
from pydantic import ValidationError
from yaozarrs import v04, v05
from zarr.abc.store import Store
from zarr.errors import GroupNotFoundError, NodeNotFoundError
from zarr.storage import FsspecStore, LocalStore

from emboundary.service.errors import InputError, first_line
from emboundary.service.volumes.axes import Axis, canonical_unit
from emboundary.service.volumes.source import Source

Multiscale = v04.Multiscale | v05.Multiscale


def open_zarr(where: str) -> Source:
    """Open a Zarr array, or level 0 of an OME-Zarr image.

    Args:
        where: path of a folder, or a URL that fsspec knows, e.g. ``https://...`` or ``s3://...``.

    Raises:
        InputError: nothing there, a group without an image, or metadata that break the OME-Zarr rules.
    """
    store = _store(where)
    try:
        node = zarr.open(store, mode="r")
    except (NodeNotFoundError, GroupNotFoundError, FileNotFoundError):
        raise InputError(
            f"{where} holds neither a Zarr array nor a Zarr group; give the folder that has its metadata"
        ) from None
    except Exception as error:  # metadata can be wrong in as many ways as there are codecs and stores
        raise InputError(f"{where} cannot be opened as Zarr: {first_line(error)}") from error
    if isinstance(node, zarr.Array):
        names = getattr(node.metadata, "dimension_names", None) or [None] * node.ndim
        return _source(where, node, tuple(Axis((name or "").lower()) for name in names))
    return _open_image(where, node)


def _store(where: str) -> Store:
    if "://" not in where:
        return LocalStore(Path(where), read_only=True)
    try:
        return FsspecStore.from_url(where, read_only=True)
    except (ImportError, ValueError, OSError) as error:
        raise InputError(f"{where} cannot be opened: {first_line(error)}") from error


def _open_image(where: str, group: zarr.Group) -> Source:
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
    return _source(where, array, axes)


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


def _source(where: str, array: zarr.Array[Any], axes: tuple[Axis, ...]) -> Source:
    return Source(where, array, array.chunks, axes)
