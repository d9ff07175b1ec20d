"""The region of interest (ROI): ``Z0:Z1,Y0:Y1,X0:X1`` in voxels, half-open, inside the volume."""

from __future__ import annotations

import re

from emboundary.model.geometry import Box, Triple
from emboundary.service.errors import UsageError

_PATTERN = re.compile(r"(\d+):(\d+),(\d+):(\d+),(\d+):(\d+)")


def parse_roi(text: str | None, shape: Triple) -> Box:
    """The box that a ROI names in a volume of shape (z, y, x); without a ROI the whole volume.

    Raises:
        UsageError: text of another form, an empty box, or one that leaves the volume: it is not clipped.
    """
    whole = Box.of_shape(shape)
    if text is None:
        return whole
    match = _PATTERN.fullmatch(text.replace(" ", ""))
    if match is None:
        raise UsageError(f"roi is {text!r}; it must be Z0:Z1,Y0:Y1,X0:X1 in whole voxels, e.g. {whole}")
    z0, z1, y0, y1, x0, x1 = (int(group) for group in match.groups())
    box = Box((z0, y0, x0), (z1, y1, x1))
    if min(box.shape) < 1:
        raise UsageError(f"roi is {text}, of shape (z, y, x) = {box.shape}; every stop must be above its start")
    if not whole.contains(box):
        raise UsageError(f"roi is {text}, but the volume ends at {whole}; a ROI must lie inside the volume")
    return box
