"""The thresholds of regions, chosen on sections that training saw and applied to those that are scored.

A threshold that is best on the scored sections themselves flatters every map, and flatters most those whose regions
hang on a few weak pixels.  Here every model, and every number of passes, gets its thresholds by one rule: map the last
training sections of each volume, and take what is best there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emboundary.training.metrics import CremiScore, cremi_score, thinned
from emboundary.training.scoring.agglomeration import agglomerate
from emboundary.training.scoring.segmentation import section_labels, watershed_sections

# Those of fragments that are joined.  Fragments themselves are those of the watershed at its own threshold, 0.5: on the
# bundled models' maps other thresholds of the watershed moved the CREMI score far less than these do.
JOINING = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
SECTIONS = 4

Map = NDArray[np.floating[Any]]
Sections = tuple[int, int]


@dataclass(frozen=True)
class Thresholds:
    """What was best on training sections.

    Attributes:
        boundary: pixels at or above it are boundary: the largest V_rand of the thinned map, of ``metrics.THRESHOLDS``.
        joining: fragments of the watershed whose boundary is weaker are joined: the smallest CREMI score, of
            ``JOINING``.
    """

    boundary: float
    joining: float


def choosing_sections(training: Sections) -> Sections:
    """The last four training sections ``[first, stop)``, or all of them where there are fewer."""
    first, stop = training
    return max(first, stop - SECTIONS), stop


def boundary_threshold(target: NDArray[np.bool_], probability: Map) -> float:
    """The lowest threshold with the largest V_rand of the thinned map (z, y, x), of ``metrics.THRESHOLDS``.

    Raises:
        ValueError: shapes that differ, probabilities outside [0, 1], or a target that is boundary alone.
    """
    return thinned(section_labels(target), probability).v_rand_threshold


def joining_threshold(target: NDArray[np.bool_], probability: Map) -> float:
    """The lowest threshold with the smallest CREMI score of joined fragments (z, y, x), of ``JOINING``.

    Raises:
        ValueError: as ``boundary_threshold``.
    """
    scores = [found.score for found in _joined(target, probability, JOINING)]
    return JOINING[int(np.argmin(scores))]


def chosen_thresholds(target: NDArray[np.bool_], probability: Map) -> Thresholds:
    """Both thresholds of a map (z, y, x) of training sections.

    Raises:
        ValueError: as ``boundary_threshold``.
    """
    return Thresholds(boundary_threshold(target, probability), joining_threshold(target, probability))


def joined_scores(target: NDArray[np.bool_], probability: Map, joining: float) -> CremiScore:
    """Errors of the watershed's fragments (z, y, x) joined within sections, against what the target encloses.

    A neuron with two profiles in a section is two segments there.  Boundary pixels do not count.

    Raises:
        ValueError: as ``boundary_threshold``, or a threshold outside (0, 1].
    """
    return next(_joined(target, probability, (joining,)))


def _joined(target: NDArray[np.bool_], probability: Map, thresholds: Sequence[float]) -> Iterator[CremiScore]:
    truth, fragments = section_labels(target), watershed_sections(probability)
    for threshold in thresholds:
        yield cremi_score(truth, agglomerate(probability, fragments, threshold, between_sections=False))
