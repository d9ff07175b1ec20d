"""All scores of one map against its target."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from emboundary.model import scores
from emboundary.training.comparing.records import Curve, Halves, MapScores, Passes
from emboundary.training.metrics import SplitMerge, thinned
from emboundary.training.scoring.segmentation import section_labels

Map = NDArray[np.float32]

_POINTS = 100
_LEAST = 1e-7


def map_scores(
    target: NDArray[np.bool_],
    probability: Map,
    *,
    threshold: float,
    volume: str,
    sections: tuple[int, int],
    passes: Passes,
    seconds: float,
) -> MapScores:
    """Score a map (z, y, x) as a ranking of pixels, and by the regions of the thinned map at ``threshold``.

    The true regions are those that the target encloses, section by section: a neuron with two profiles in a section is
    two regions there.  The threshold comes from other sections; see ``scoring.thresholds``.

    Raises:
        ValueError: shapes that differ, a target of one class, or probabilities outside [0, 1].
    """
    curve = scores.curve(target, probability)
    f1, f1_threshold = scores.best_f1(curve)
    regions = thinned(section_labels(target), probability, (threshold,))
    return MapScores(
        volume=volume,
        sections=sections,
        passes=passes,
        roc_auc=scores.roc_auc(curve),
        average_precision=scores.average_precision(curve),
        best_f1=f1,
        best_f1_threshold=f1_threshold,
        cross_entropy=cross_entropy(target, probability),
        v_rand=_halves(regions.v_rand, threshold),
        v_info=_halves(regions.v_info, threshold),
        seconds=seconds,
        curve=thin_curve(curve),
    )


def cross_entropy(target: NDArray[np.bool_], probability: Map) -> float:
    """Mean of ``-log`` of the probability that the true class was given, in nats.

    Probabilities are kept 1e-7 away from 0 and 1, about as near as float32 can be to 1.
    """
    given = np.where(target, probability, 1 - probability)
    return float(-np.log(np.maximum(given, _LEAST), dtype=np.float64).mean())


def thin_curve(curve: scores.Curve) -> Curve:
    """Points spread evenly over the recall and over the first third of the false positive rate, both ends kept."""
    even = np.linspace(0, 1, _POINTS)
    some = np.unique(
        np.concatenate(
            [
                np.searchsorted(curve.recall, even),
                np.searchsorted(curve.false_positive_rate, even / 3),
                [0, curve.threshold.size - 1],
            ]
        ).clip(max=curve.threshold.size - 1)
    )
    return Curve(
        false_positive_rate=_rounded(curve.false_positive_rate[some]),
        recall=_rounded(curve.recall[some]),
        precision=_rounded(curve.precision[some]),
    )


def _rounded(values: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(round(float(value), 6) for value in values)


def _halves(score: SplitMerge, threshold: float) -> Halves:
    return Halves(split=score.split, merge=score.merge, f=score.f, threshold=threshold)
