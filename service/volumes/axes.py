"""Which axis of an array is z, y and x, with its scale and unit: read from metadata, or told, never guessed."""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from emboundary.service.errors import InputError, UsageError

Triple = tuple[int, int, int]

# Canonical unit names are those of OME-Zarr; the values are nm per unit.
_NANOMETRES = {
    "angstrom": 0.1,
    "picometer": 1e-3,
    "nanometer": 1.0,
    "micrometer": 1e3,
    "millimeter": 1e6,
    "centimeter": 1e7,
    "meter": 1e9,
    "inch": 2.54e7,
}
_SYMBOLS = {
    "å": "angstrom",
    "pm": "picometer",
    "nm": "nanometer",
    "um": "micrometer",
    "µm": "micrometer",  # micro sign
    "μm": "micrometer",  # Greek mu
    "micron": "micrometer",
    "microns": "micrometer",
    "mm": "millimeter",
    "cm": "centimeter",
    "m": "meter",
}


@dataclass(frozen=True)
class Axis:
    """One axis of an array.

    Attributes:
        name: lower case, e.g. ``z``; empty where the file names none.
        scale: extent of a voxel in ``unit``; None where unknown.
        unit: as OME-Zarr spells it, e.g. ``nanometer``; None where unknown.
        origin: position of the first voxel's centre, in ``unit``.
    """

    name: str = ""
    scale: float | None = None
    unit: str | None = None
    origin: float = 0.0

    @property
    def voxel_size_nm(self) -> float | None:
        """Extent of a voxel in nm; None where scale or unit is unknown."""
        factor = _NANOMETRES.get(self.unit or "")
        return None if factor is None or self.scale is None else self.scale * factor

    def cropped(self, start: int) -> Axis:
        """The axis of an array that begins at voxel ``start`` of this one."""
        return replace(self, origin=self.origin + start * (1.0 if self.scale is None else self.scale))


SpaceAxes = tuple[Axis, Axis, Axis]
UNCALIBRATED: SpaceAxes = (Axis("z"), Axis("y"), Axis("x"))


def canonical_unit(text: str | None) -> str | None:
    """The OME-Zarr name of a unit of length; other text comes back as it is, an empty one as None."""
    if not text:
        return None
    lower = text.strip().lower().replace("\\u00b5", "µ")
    return _SYMBOLS.get(lower, lower.replace("metre", "meter") or None)


def calibrated(axes: SpaceAxes, voxel_size_nm: tuple[float, float, float]) -> SpaceAxes:
    """Axes with a voxel size (z, y, x) in nm that the user tells; an origin in a unit of length keeps its place.

    Raises:
        UsageError: not three finite numbers above 0.
    """
    if not all(math.isfinite(size) and size > 0 for size in voxel_size_nm):
        raise UsageError(
            f"voxel size is {','.join(f'{size:g}' for size in voxel_size_nm)}; it must be three finite numbers "
            "above 0, the extent of a voxel along z, y and x in nm, e.g. 50,4.6,4.6"
        )
    z, y, x = (_calibrated(axis, float(size)) for axis, size in zip(axes, voxel_size_nm, strict=True))
    return z, y, x


def _calibrated(axis: Axis, size: float) -> Axis:
    factor = _NANOMETRES.get(axis.unit or "")
    # Without a unit of length, the origin is a number of voxels, whatever these are.
    origin = axis.origin * factor if factor is not None else axis.origin / (axis.scale or 1.0) * size
    if not math.isfinite(origin):
        origin = 0.0  # the file's numbers are the nonsense that the user mends
    return replace(axis, scale=size, unit="nanometer", origin=origin)


@dataclass(frozen=True)
class Assignment:
    """Where z, y and x are in an array.

    Attributes:
        places: the array's axis that is z, y, x; None for z where the array is a single section.
        axes: name, scale and unit of z, y, x.
    """

    places: tuple[int | None, int, int]
    axes: SpaceAxes


def assign(
    where: str, shape: tuple[int, ...], dtype: np.dtype[Any], axes: tuple[Axis, ...], told: str | None
) -> Assignment:
    """Find z, y and x among the axes of an array.

    Args:
        where: the array's name in messages.
        shape: of the array.
        dtype: of the array; colour images are mostly uint8.
        axes: as the file names them, one per axis of the array.
        told: the user's word, one letter per axis, e.g. ``zyx`` or ``cyx``; it overrides the file's names.

    Raises:
        UsageError: ``told`` does not fit the array.
        InputError: axes that no metadata names, or an axis beside z, y and x that is longer than 1.
    """
    names = _told(where, shape, told) if told is not None else _named(where, shape, dtype, axes)
    for name, extent in zip(names, shape, strict=True):
        if name not in ("z", "y", "x") and extent != 1:
            raise InputError(
                f"{where} has axes {_show(names)} of shape {shape}; only z, y and x may be longer than 1, axis "
                f"{name!r} has {extent}: store one channel or time point as an array of its own, or give --axes if the "
                "names are wrong"
            )
    if "y" not in names or "x" not in names:
        raise InputError(
            f"{where} has axes {_show(names)}; y and x must be among them: name them with --axes, e.g. zyx"
        )
    z = names.index("z") if "z" in names else None
    y, x = names.index("y"), names.index("x")
    axis_z = Axis("z") if z is None else replace(axes[z], name="z")
    return Assignment((z, y, x), (axis_z, replace(axes[y], name="y"), replace(axes[x], name="x")))


def _told(where: str, shape: tuple[int, ...], told: str) -> list[str]:
    names = list(told.lower())
    if len(names) != len(shape) or len(set(names)) != len(names) or not {"y", "x"} <= set(names) <= set("tczyx"):
        raise UsageError(
            f"axes is {told!r}, but {where} has shape {shape}: give {len(shape)} different letters out of t, c, z, y, "
            "x, one per axis and y and x among them"
        )
    return names


def _named(where: str, shape: tuple[int, ...], dtype: np.dtype[Any], axes: tuple[Axis, ...]) -> list[str]:
    names = [axis.name for axis in axes]
    if all(names):
        if len(set(names)) != len(names):
            raise InputError(f"{where} names its axes {_show(names)}, one of them twice: name them with --axes")
        return names
    plain = {2: ["y", "x"], 3: ["z", "y", "x"]}.get(len(shape))
    if plain is None or any(name and name != usual for name, usual in zip(names, plain, strict=True)):
        example = _four(shape) if len(shape) == 4 else "tczyx" if len(shape) == 5 else "zyx"
        raise InputError(
            f"{where} has shape {shape} and its axes are not named: name them with --axes, e.g. --axes {example}: "
            f"emboundary predict {shlex.quote(where)} OUTPUT --axes {example}"
        )
    if not any(names) and _looks_like_colour(shape, dtype):
        raise InputError(
            f"{where} has shape {shape} and looks like a colour image: convert it to one grey value per voxel, or "
            "give --axes zyx if it is a stack"
        )
    return plain


def _four(shape: tuple[int, ...]) -> str:
    """Letters for four axes, the channel where the shape leaves room for it."""
    place = next((place for place in (0, 1, 3) if shape[place] == 1), 0)
    return "zyx"[:place] + "c" + "zyx"[place:]


def _looks_like_colour(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bool:
    return len(shape) == 3 and dtype == np.uint8 and shape[-1] in (3, 4) and min(shape[:2]) >= 16


def _show(names: list[str]) -> str:
    # A file may call an axis anything; a message has one line.
    return ",".join((name if name.isprintable() else repr(name)) or "?" for name in names)
