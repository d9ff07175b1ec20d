"""TIFF: one grey section, or a stack of them.  Sizes are read from the tags before anything is decoded."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from emboundary.service.codecs.errors import MalformedBodyError, UnsupportedImageError, refuse_large
from emboundary.service.errors import InputError, first_line
from emboundary.service.volumes.tiff_input import refuse_truncated

_PAGES_AS_SECTIONS = str.maketrans({"I": "Z", "Q": "Z"})


def decode(body: bytes, limit: int) -> tuple[NDArray[Any], str]:
    """Read a TIFF and its axes, lower case; pages of equal size without further description are sections.

    Raises:
        MalformedBodyError: no TIFF, or one that ends early or is damaged.
        UnsupportedImageError: colour, a palette, or pages of different sizes.
        TooLargeError: more than ``limit`` bytes once decompressed.
    """
    try:
        with tifffile.TiffFile(io.BytesIO(body), _multifile=False) as file:
            _refuse_truncated(file)
            series = _only_series(file)
            _refuse_colour(series)
            refuse_large(
                math.prod(series.shape) * np.dtype(series.dtype).itemsize, limit, f"the TIFF of shape {series.shape}"
            )
            return np.asarray(series.asarray(maxworkers=1)), series.axes.translate(_PAGES_AS_SECTIONS).lower()
    except InputError:
        raise
    except Exception as error:  # a damaged TIFF fails anywhere inside tifffile or a codec
        reason = first_line(error)
        raise MalformedBodyError(
            f"the TIFF cannot be read ({reason}); it is truncated or damaged: send it whole"
        ) from error


def encode(array: NDArray[Any]) -> bytes:
    """Write an array (y, x) or (z, y, x) as a zlib-compressed TIFF that states its axes."""
    stream = io.BytesIO()
    axes = "ZYX"[-array.ndim :]
    tifffile.imwrite(stream, array, photometric="minisblack", compression="zlib", metadata={"axes": axes})
    return stream.getvalue()


def _refuse_truncated(file: tifffile.TiffFile) -> None:
    try:
        refuse_truncated("the TIFF", file)
    except InputError as error:
        raise MalformedBodyError(str(error)) from error


def _only_series(file: tifffile.TiffFile) -> tifffile.TiffPageSeries:
    if len(file.series) != 1:
        shapes = ", ".join(str(s.shape) for s in file.series[:3])
        raise UnsupportedImageError(
            f"the TIFF holds {len(file.series)} images of different kinds ({shapes}); it must hold one image or one "
            "stack of equal sections: split it"
        )
    return file.series[0]


def _refuse_colour(series: tifffile.TiffPageSeries) -> None:
    page = series.keyframe
    if page.photometric not in (None, tifffile.PHOTOMETRIC.MINISBLACK) or page.samplesperpixel != 1:
        kind = getattr(page.photometric, "name", page.photometric)
        raise UnsupportedImageError(
            f"the TIFF is {kind} with {page.samplesperpixel} samples per pixel; it must be grey (MINISBLACK) with 1: "
            "convert it to one channel"
        )
