"""Names, scales and units of a TIFF's axes, from OME-XML, ImageJ or our own metadata.

A plain resolution tag is left aside: most programs fill it with 72 or 96 dots per inch, whatever they store.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import tifffile

from emboundary.service.volumes.axes import Axis, canonical_unit

# Letters by which tifffile says that nothing in the file names the axis.
_UNNAMED = frozenset("QI")


def read_axes(file: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> tuple[Axis, ...]:
    """One axis per axis of the series; those of a plain stack of pages have no names."""
    names = [letter.lower() if letter not in _UNNAMED else "" for letter in series.axes]
    if all(name in ("", "y", "x") for name in names):
        names = [""] * len(names)  # "YX" alone says no more than the shape of a page
    scales = _scales(file)
    return tuple(replace(scales.get(name, Axis()), name=name) for name in names)


def _scales(file: tifffile.TiffFile) -> dict[str, Axis]:
    if file.is_ome and file.ome_metadata:
        return _physical_sizes(_ome_pixels(file.ome_metadata))
    if file.is_shaped and file.shaped_metadata:
        return _physical_sizes(file.shaped_metadata[0])
    if file.is_imagej and file.imagej_metadata:
        return _imagej(file, file.imagej_metadata)
    return {}


def _ome_pixels(xml: str) -> Mapping[str, Any]:
    images = tifffile.xml2dict(xml)["OME"]["Image"]
    pixels: Mapping[str, Any] = (images[0] if isinstance(images, list) else images)["Pixels"]
    return pixels


def _physical_sizes(described: Mapping[str, Any]) -> dict[str, Axis]:
    """Axes from the keys PhysicalSizeX and PhysicalSizeXUnit, whose default is the micrometre."""
    return {
        letter.lower(): Axis(
            scale=float(described[f"PhysicalSize{letter}"]),
            unit=canonical_unit(str(described.get(f"PhysicalSize{letter}Unit", "um"))),
        )
        for letter in "ZYX"
        if f"PhysicalSize{letter}" in described
    }


def _imagej(file: tifffile.TiffFile, described: Mapping[str, Any]) -> dict[str, Axis]:
    unit = canonical_unit(str(described.get("unit", "")))
    axes = {}
    if "spacing" in described:
        axes["z"] = Axis(scale=float(described["spacing"]), unit=unit)
    for name, tag in (("y", "YResolution"), ("x", "XResolution")):
        count, per = file.pages.first.tags[tag].value if tag in file.pages.first.tags else (0, 1)
        if count:
            axes[name] = Axis(scale=per / count, unit=unit)
    return axes
