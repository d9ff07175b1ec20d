"""How the grey values of a volume compare with those that the model learned from, once both are normalised."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from emboundary.service.preparing.intensity import Intensity, measure
from emboundary.service.volumes import open_volume

# Sections 13-15 of the data called by this name in the descriptions of models: the tissue, the microscope and the
# preparation of the sections that the bundled models were trained on, which are not bundled.
REFERENCE = Path(__file__).parents[1] / "sample" / "raw.ome.tif"
REFERENCE_DATA = "vnc"

# In standard deviations; what lies beyond counts for the outermost bins.
_RANGE = 8.0
_BINS = 320

# Distances from the reference, measured: all of the stack that it was cut from 0.03, another stack of the same tissue
# 0.04, the same tissue under other microscopes 0.09 and 0.11 (another animal); uniform noise 0.14, a normal
# distribution 0.15, the reference with black and white exchanged 0.24, a label image 0.77.
_ALIKE, _FAR = 0.12, 0.2

Verdict = Literal["alike", "different", "far"]
Weights = NDArray[np.float64]


@dataclass(frozen=True)
class Comparison:
    """Two distributions of normalised grey values, side by side.

    Attributes:
        volume: shares of the bins, of the volume; their sum is 1.
        training: likewise, of the training data.
        distance: earth mover's distance between the two, in standard deviations.
        inverted_distance: the same after black and white are exchanged in the volume.
    """

    volume: tuple[float, ...]
    training: tuple[float, ...]
    distance: float
    inverted_distance: float

    @property
    def verdict(self) -> Verdict:
        """What the distance means."""
        if self.distance <= _ALIKE:
            return "alike"
        return "different" if self.distance <= _FAR else "far"

    @property
    def looks_inverted(self) -> bool:
        """Whether exchanging black and white would bring the volume much closer."""
        return self.verdict != "alike" and self.inverted_distance < self.distance / 2


def compare(values: list[NDArray[Any]], intensity: Intensity) -> Comparison:
    """Compare voxel values with the training data, each normalised by its own statistics.

    Args:
        values: of the volume, arrays of any shape.
        intensity: statistics of the volume that the values come from.
    """
    volume, training = distribution(values, intensity), _reference()
    return Comparison(
        tuple(float(share) for share in volume),
        tuple(float(share) for share in training),
        _distance(volume, training),
        _distance(volume[::-1], training),
    )


def distribution(values: list[NDArray[Any]], intensity: Intensity) -> Weights:
    """Shares of the bins of the normalised values, shape (320,): from -8 to 8 standard deviations."""
    counts = np.zeros(_BINS, np.int64)
    for part in values:
        grey = np.clip(intensity.normalise(part).reshape(-1), -_RANGE, _RANGE)
        bins = ((grey + _RANGE) * (_BINS / (2 * _RANGE))).astype(np.int64)
        counts += np.bincount(np.minimum(bins, _BINS - 1), minlength=_BINS)
    shares: Weights = counts / counts.sum()
    return shares


def columns(shares: tuple[float, ...], count: int, reach: float) -> list[float]:
    """The shares between -reach and reach standard deviations in ``count`` columns, for drawing.

    ``count`` columns must be a whole number of bins wide each.
    """
    bins = round(reach / _RANGE * _BINS)
    first = (_BINS - bins) // 2
    inner = np.asarray(shares)[first : first + bins]
    return [float(share) for share in inner.reshape(count, -1).sum(axis=1)]


@cache
def _reference() -> Weights:
    everything = slice(None)
    with open_volume(REFERENCE) as volume:
        return distribution([volume[everything, everything, everything]], measure(volume).intensity)


def _distance(a: Weights, b: Weights) -> float:
    """Area between the two cumulative distributions: in one dimension that is the earth mover's distance."""
    return float(np.abs(np.cumsum(a - b)).sum() * (2 * _RANGE / _BINS))
