"""N5 datasets and Neuroglancer precomputed volumes, read by tensorstore: the extra ``emboundary[tensorstore]``.

Both formats count their axes from the fastest, x; here they are turned round, as in every other format: the last axis
of the array is the one whose neighbours lie side by side in the file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from emboundary.service.errors import InputError, first_line
from emboundary.service.volumes.axes import Axis, canonical_unit
from emboundary.service.volumes.bounds import refuse_large, refuse_unaddressable
from emboundary.service.volumes.source import Key, Source
from emboundary.service.volumes.storage import digest, is_url

_SCHEMES = ("http", "https", "s3", "gs")


def open_n5(where: str, document: bytes) -> Source:
    """Open an N5 dataset.

    Args:
        where: path or URL of the dataset's folder.
        document: its ``attributes.json``.

    Raises:
        InputError: a group, metadata that break the rules, or tensorstore is missing.
    """
    attributes = _parse(where, "attributes.json", document)
    if not {"dimensions", "blockSize", "dataType"} <= attributes.keys():
        raise InputError(
            f"{where} is an N5 group, not a dataset; give the folder of a dataset inside it, e.g. "
            f"{where.rstrip('/')}/s0"
        )
    _refuse_blocks(where, "block", attributes["blockSize"])
    source = _open(where, {"driver": "n5"}, document)
    return _described(source, _n5_axes(attributes, len(source.array.shape))[::-1])


def open_precomputed(where: str, document: bytes) -> Source:
    """Open the finest scale of a Neuroglancer precomputed volume.

    Args:
        where: path or URL of the volume's folder.
        document: its ``info``.

    Raises:
        InputError: metadata that break the rules, or tensorstore is missing.
    """
    info = _parse(where, "info", document)
    scales = info.get("scales")
    if not (isinstance(scales, list) and scales and isinstance(scales[0], dict)):
        raise InputError(f"{where} is no Neuroglancer precomputed volume: its info names no scales; mend its metadata")
    sizes = scales[0].get("chunk_sizes")
    for blocks in sizes if isinstance(sizes, list) else ():
        _refuse_blocks(where, "chunk", blocks)
    source = _open(where, {"driver": "neuroglancer_precomputed", "scale_index": 0}, document)
    resolution = _numbers(scales[0].get("resolution"), 3)
    offset = _numbers(scales[0].get("voxel_offset", [0, 0, 0]), 3)
    if resolution is None or offset is None:
        raise InputError(
            f"{where} has no resolution and voxel offset of 3 finite numbers in its info; mend its metadata"
        )
    space = [
        Axis(name, size, "nanometer", size * first) for name, size, first in zip("xyz", resolution, offset, strict=True)
    ]
    return _described(source, (Axis("c"), *reversed(space)))


class _Reversed:
    """A tensorstore array with its axes turned round and counted from 0."""

    def __init__(self, store: Any) -> None:
        self._store = store.T
        self._first = self._store.domain.origin
        self.shape: tuple[int, ...] = tuple(self._store.domain.shape)
        self.dtype: np.dtype[Any] = np.dtype(self._store.dtype.numpy_dtype)
        self.chunks: tuple[int, ...] = tuple(self._store.chunk_layout.read_chunk.shape)

    def __getitem__(self, key: Key) -> NDArray[Any]:
        moved = tuple(
            part + first if isinstance(part, int) else slice(*(first + end for end in part.indices(extent)[:2]))
            for part, first, extent in zip(key, self._first, self.shape, strict=True)
        )
        return np.asarray(self._store[moved].read().result())


def _open(where: str, spec: dict[str, Any], document: bytes) -> Source:
    try:
        import tensorstore  # an extra, and slow to load
    except ImportError as error:
        raise InputError(
            f"{where} is an N5 or Neuroglancer precomputed volume, which the package tensorstore reads; it is not "
            "installed: pip install 'emboundary[tensorstore]'"
        ) from error
    try:
        store = tensorstore.open(
            spec | {"kvstore": _kvstore(where), "open": True}, read=True, context=tensorstore.Context(_CONTEXT)
        ).result(timeout=_OPEN_SECONDS)
        array = _Reversed(store)
    except InputError:
        raise
    except Exception as error:  # every fault of the metadata is a ValueError with several lines
        raise InputError(f"{where} cannot be opened: {first_line(error)}; mend its metadata") from error
    axes = tuple(Axis() for _ in array.shape)
    state = {"metadata_sha256": digest({"metadata": document})}
    return Source(where, array, array.chunks, axes, decoded=array.chunks, state=state)


# Nothing is kept between reads: what we need again is read in one block.
_CONTEXT = {"cache_pool": {"total_bytes_limit": 0}}
_OPEN_SECONDS = 120


def _kvstore(where: str) -> Any:
    if not is_url(where):
        return {"driver": "file", "path": f"{Path(where).absolute()}/"}
    if where.partition("://")[0] not in _SCHEMES:
        raise InputError(
            f"{where} is an N5 or Neuroglancer precomputed volume, which can be read from a folder or from "
            f"{', '.join(f'{scheme}://' for scheme in _SCHEMES)} only: copy it to one of them"
        )
    return where.rstrip("/") + "/"


def _parse(where: str, name: str, document: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(document)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} has a damaged {name}: {first_line(error)}; copy it again") from error
    if not isinstance(parsed, dict):
        raise InputError(f"{where} has a damaged {name}: it must be a JSON object; copy it again")
    return parsed


def _refuse_blocks(where: str, what: str, blocks: Any) -> None:
    # tensorstore allocates what it is told: looked at before it is asked.
    if isinstance(blocks, list) and all(isinstance(extent, int) and extent > 0 for extent in blocks):
        refuse_large(where, what, tuple(blocks), 1)


def _described(source: Source, axes: Sequence[Axis]) -> Source:
    refuse_unaddressable(source.where, source.array.shape, source.array.dtype.itemsize)
    return Source(
        source.where,
        source.array,
        source.chunks,
        tuple(axes),
        source.close,
        decoded=source.decoded,
        state=source.state,
    )


def _n5_axes(attributes: dict[str, Any], ndim: int) -> tuple[Axis, ...]:
    """Axes in the file's order, x first; without names the format's own convention holds, which is x, y, z."""
    names = _strings(attributes.get("axes"), ndim) or [""] * ndim
    sizes = _numbers(attributes.get("resolution"), ndim)
    units = _strings(attributes.get("units"), ndim)
    pixel = attributes.get("pixelResolution")
    if sizes is None and isinstance(pixel, dict) and _is_full_resolution(attributes):
        sizes = _numbers(pixel.get("dimensions"), ndim)
        unit = pixel.get("unit")
        units = [unit] * ndim if isinstance(unit, str) else None
    units = units or [""] * ndim
    if sizes is None:
        return tuple(Axis(name.lower()) for name in names)
    return tuple(
        Axis(name.lower(), size, canonical_unit(unit)) for name, size, unit in zip(names, sizes, units, strict=True)
    )


def _is_full_resolution(attributes: dict[str, Any]) -> bool:
    # Of a smaller level, some programs store their own voxel size and some that of the full resolution.
    factors = attributes.get("downsamplingFactors")
    return factors is None or (isinstance(factors, list) and all(factor == 1 for factor in factors))


def _strings(found: Any, count: int) -> list[str] | None:
    valid = isinstance(found, list) and len(found) == count and all(isinstance(text, str) for text in found)
    return cast(list[str], found) if valid else None


def _numbers(found: Any, count: int) -> list[float] | None:
    """Finite numbers; None where there are not as many."""
    if not (isinstance(found, list) and len(found) == count):
        return None
    if not all(isinstance(n, int | float) and not isinstance(n, bool) for n in found):
        return None
    try:
        numbers = [float(n) for n in found]
    except OverflowError:
        return None
    return numbers if all(math.isfinite(n) for n in numbers) else None
