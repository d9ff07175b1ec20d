"""Thresholds are chosen on one part of a volume, and are what is best there."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from emboundary.training.crops.data import LabelledVolume
from emboundary.training.metrics import THRESHOLDS, thinned
from emboundary.training.scoring.segmentation import section_labels
from emboundary.training.scoring.thresholds import (
    JOINING,
    boundary_threshold,
    choosing_sections,
    chosen_thresholds,
    joined_scores,
    joining_threshold,
)

Map = NDArray[np.float32]


def with_gaps(target: NDArray[np.bool_], strong: float, weak: float) -> Map:
    """Boundary of probability ``strong`` whose every eighth column is only ``weak``, on a ground of 0.05."""
    probability = np.where(target, strong, 0.05).astype(np.float32)
    probability[:, :, ::8][target[:, :, ::8]] = weak
    return probability


def test_the_last_four_training_sections_choose() -> None:
    assert choosing_sections((0, 13)) == (9, 13)
    assert choosing_sections((3, 7)) == (3, 7)
    assert choosing_sections((2, 4)) == (2, 4)


def test_weak_gaps_ask_for_a_low_boundary_threshold(volume: LabelledVolume) -> None:
    low = boundary_threshold(volume.target, with_gaps(volume.target, 0.95, 0.12))
    assert low == 0.06, "the lowest of those between the ground and the gaps"
    high = with_gaps(volume.target, 0.95, 0.55)
    high[~volume.target] = 0.45
    assert boundary_threshold(volume.target, high) == 0.5
    best = thinned(section_labels(volume.target), with_gaps(volume.target, 0.95, 0.12))
    assert low == best.v_rand_threshold


def test_the_joining_threshold_has_the_smallest_cremi_score(volume: LabelledVolume) -> None:
    rng = np.random.default_rng(0)
    noisy = np.clip(with_gaps(volume.target, 0.8, 0.3) + rng.normal(0, 0.1, volume.target.shape), 0, 1)
    probability = noisy.astype(np.float32)
    scores = {t: joined_scores(volume.target, probability, t).score for t in JOINING}
    chosen = joining_threshold(volume.target, probability)
    assert scores[chosen] == min(scores.values())
    assert scores[chosen] < max(scores.values()), "or nothing was chosen"
    both = chosen_thresholds(volume.target, probability)
    assert (both.boundary, both.joining) == (boundary_threshold(volume.target, probability), chosen)
    assert both.boundary in THRESHOLDS


def test_a_perfect_map_has_no_errors_at_its_threshold(volume: LabelledVolume) -> None:
    perfect = volume.target.astype(np.float32)
    assert joined_scores(volume.target, perfect, joining_threshold(volume.target, perfect)).score < 0.05
    with pytest.raises(ValueError, match="threshold is 0"):
        joined_scores(volume.target, perfect, 0)
