"""A folder of section images: one PNG or TIFF per section, in the order of the numbers in their names."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from emboundary.service.errors import InputError, first_line
from emboundary.service.volumes.axes import Axis
from emboundary.service.volumes.bounds import refuse_large
from emboundary.service.volumes.png_input import Header, decode_png
from emboundary.service.volumes.source import Key, Source
from emboundary.service.volumes.storage import Folder, LocalFolder
from emboundary.service.volumes.tiff_input import open_tiff

_CACHE_BYTES = 1 << 28
_KINDS = {".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF"}
# Images that we do not read: a folder that has them is not what we think it is.
_OTHERS = frozenset({".jpg", ".jpeg", ".jp2", ".bmp", ".gif", ".webp", ".pgm"})
_PARTS = re.compile(r"([0-9]+)")


@dataclass(frozen=True)
class _Section:
    """What every image of a folder must have in common."""

    shape: tuple[int, int]
    dtype: np.dtype[Any]

    def __str__(self) -> str:
        return f"{self.shape[0]} x {self.shape[1]} pixels of {self.dtype}"


def holds_sections(names: Sequence[str]) -> bool:
    """Whether a folder has section images."""
    return any(_suffix(name) in _KINDS for name in names)


def open_sections(folder: Folder, names: Sequence[str]) -> Source:
    """Open a folder of section images as one stack.

    Every image of a local folder is looked at, of a remote one the first and the last; all are checked when read.

    Raises:
        InputError: images of different kinds, shapes or types, or names whose numbers leave doubt about the order.
    """
    ordered = order_sections(folder.where, names)
    kind = _KINDS[_suffix(ordered[0])]
    looked_at = ordered if isinstance(folder, LocalFolder) else [ordered[0], ordered[-1]]
    first = _look(folder, kind, ordered[0])
    for name in looked_at[1:]:
        _refuse_different(folder, name, _look(folder, kind, name), first, ordered[0])
    states = [[name, folder.state(name)] for name in ordered]
    state = {"sections": len(ordered), "files_sha256": hashlib.sha256(json.dumps(states).encode()).hexdigest()}
    array = _Sections(folder, kind, ordered, first)
    return Source(folder.where, array, (1, *first.shape), (Axis("z"), Axis("y"), Axis("x")), state=state)


def order_sections(where: str, names: Sequence[str]) -> list[str]:
    """The images among ``names`` in the order of the one number that tells them apart.

    Raises:
        InputError: mixed kinds, names that differ in more than one number, gaps, or a number that occurs twice.
    """
    images = [name for name in sorted(names) if _suffix(name) in _KINDS.keys() | _OTHERS and not name.startswith(".")]
    kinds = sorted({_KINDS.get(_suffix(name), _suffix(name)) for name in images})
    if len(kinds) != 1 or kinds[0] not in _KINDS.values():
        raise InputError(
            f"{where} holds images of kinds {', '.join(kinds)}; its sections must be all PNG or all TIFF: move the "
            "others away"
        )
    split = {name: _PARTS.split(name[: -len(_suffix(name))]) for name in images}
    places = _varying(where, list(split.items()))
    if places is None:
        return images
    numbers = {name: int(parts[places]) for name, parts in split.items()}
    ordered = sorted(images, key=lambda name: (numbers[name], name))
    for before, after in itertools.pairwise(ordered):
        if numbers[after] == numbers[before]:
            raise InputError(
                f"{where} holds section {numbers[after]} twice, as {before} and {after}; move one of them away"
            )
        if numbers[after] != numbers[before] + 1:
            missing = numbers[before] + 1
            raise InputError(
                f"{where} has no section {missing} between {before} and {after}; the numbers must be consecutive: add "
                "what is missing, or renumber the images"
            )
    return ordered


def _varying(where: str, split: list[tuple[str, list[str]]]) -> int | None:
    """The place of the number that tells the names apart; None for a single image."""
    (name, first), *others = split
    differing: set[int] = set()
    for other, parts in others:
        if len(parts) != len(first) or parts[::2] != first[::2]:
            raise InputError(
                f"{where} holds images named {name} and {other}; the names of its sections must differ in one number "
                "alone, e.g. section_001.png: rename them, or move the others away"
            )
        # Leading zeros are no difference: 7 and 007 are the same number, told apart as a duplicate later.
        differing |= {place for place in range(1, len(parts), 2) if int(parts[place]) != int(first[place])}
    if len(differing) > 1:
        raise InputError(
            f"{where} holds images whose names differ in {len(differing)} numbers, e.g. {name} and {split[-1][0]}; "
            "they must differ in one alone, the number of the section: rename them, or move the others away"
        )
    if differing:
        return differing.pop()
    return None if not others else len(first) - 2


def _suffix(name: str) -> str:
    dot = name.rfind(".")
    return name[dot:].lower() if dot > 0 else ""


class _Sections:
    """The stack: an image is decoded whole when one of its pixels is asked for; the last ones are kept."""

    def __init__(self, folder: Folder, kind: str, names: list[str], section: _Section) -> None:
        self.shape = (len(names), *section.shape)
        self.dtype = section.dtype
        self._folder = folder
        self._kind = kind
        self._names = names
        self._section = section
        self._kept: OrderedDict[int, NDArray[Any]] = OrderedDict()
        self._kept_bytes = 0
        self._lock = threading.Lock()
        # Two threads that want one image decode it once; those that want different ones do so side by side.
        self._decoding = [threading.Lock() for _ in range(16)]

    def __getitem__(self, key: Key) -> NDArray[Any]:
        wanted, *inside = key
        if isinstance(wanted, int):
            return self._image(wanted)[tuple(inside)]
        numbers = range(*wanted.indices(self.shape[0]))
        parts = [self._image(number)[tuple(inside)] for number in numbers]
        return np.stack(parts) if parts else np.empty((0, *self._section.shape), self.dtype)[(slice(None), *inside)]

    def _image(self, number: int) -> NDArray[Any]:
        with self._decoding[number % len(self._decoding)]:
            with self._lock:
                kept = self._kept.get(number)
                if kept is not None:
                    self._kept.move_to_end(number)
                    return kept
            image = self._decode(self._names[number])
            with self._lock:
                self._kept[number] = image
                self._kept_bytes += image.nbytes
                while self._kept_bytes > _CACHE_BYTES and len(self._kept) > 1:
                    self._kept_bytes -= self._kept.popitem(last=False)[1].nbytes
        return image

    def _decode(self, name: str) -> NDArray[Any]:
        where = _path(self._folder, name)
        with self._folder.open(name) as file:
            image = decode_png(where, file) if self._kind == "PNG" else _decode_tiff(where, file)
        found = _Section((image.shape[0], image.shape[1]), image.dtype)
        _refuse_different(self._folder, name, found, self._section, self._names[0])
        return image


def _look(folder: Folder, kind: str, name: str) -> _Section:
    """Shape and type of an image, from its header."""
    where = _path(folder, name)
    try:
        with folder.open(name) as file:
            if kind == "PNG":
                head = file.read(64)
                if not head.startswith(b"\x89PNG\r\n\x1a\n"):
                    raise InputError(f"{where} is no PNG, whatever its name: copy or export it again")
                header = Header.of(where, head)
                return _Section(header.shape, header.dtype)
            return _look_at_tiff(where, file)
    except OSError as error:
        raise InputError(f"{where} cannot be read: {first_line(error)}; check its permissions") from error


def _look_at_tiff(where: str, file: BinaryIO) -> _Section:
    source = open_tiff(where, file, {})
    shape, dtype = source.array.shape, source.array.dtype.newbyteorder("=")
    source.close()
    if len(shape) < 2 or any(extent != 1 for extent in shape[:-2]):
        raise InputError(f"{where} has shape {shape}; each image of a folder must be one section: give the stack alone")
    refuse_large(where, "TIFF image", shape, dtype.itemsize)
    return _Section((shape[-2], shape[-1]), dtype)


def _decode_tiff(where: str, file: BinaryIO) -> NDArray[Any]:
    source = open_tiff(where, file, {}, kept_bytes=0)
    try:
        shape = source.array.shape
        refuse_large(where, "TIFF image", shape, source.array.dtype.itemsize)
        image = np.asarray(source.array[tuple(slice(0, extent) for extent in shape)])
    finally:
        source.close()
    return image.reshape(shape[-2:]).astype(image.dtype.newbyteorder("="), copy=False)


def _refuse_different(folder: Folder, name: str, found: _Section, first: _Section, first_name: str) -> None:
    if found != first:
        raise InputError(
            f"{_path(folder, name)} has {found}, but {first_name} has {first}; all sections must be alike: crop or "
            "convert them, or move the others away"
        )


def _path(folder: Folder, name: str) -> str:
    return f"{folder.where.rstrip('/')}/{name}"
