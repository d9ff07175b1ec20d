from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.metrics import average_precision_score, log_loss, precision_recall_curve, roc_auc_score

from emboundary.model import scores
from emboundary.training.comparing.measuring import cross_entropy, map_scores, thin_curve
from emboundary.training.comparing.records import MapScores
from emboundary.training.crops.data import LabelledVolume
from emboundary.training.metrics import thinned
from emboundary.training.scoring.segmentation import section_labels

Map = NDArray[np.float32]


@pytest.fixture(scope="module")
def blurred(volume: LabelledVolume) -> Map:
    rng = np.random.default_rng(0)
    soft = ndimage.gaussian_filter(volume.target.astype(np.float32), (0, 1, 1)) + rng.normal(0, 0.1, volume.raw.shape)
    return np.clip(soft, 0, 1).astype(np.float32)


@pytest.fixture(scope="module")
def measured(volume: LabelledVolume, blurred: Map) -> MapScores:
    return map_scores(volume.target, blurred, threshold=0.5, volume="synthetic", sections=(4, 6), passes=1, seconds=2.5)


def test_pixel_scores_are_those_of_scikit_learn(volume: LabelledVolume, blurred: Map, measured: MapScores) -> None:
    truth, score = volume.target.ravel(), blurred.ravel()
    assert measured.roc_auc == pytest.approx(roc_auc_score(truth, score))
    assert measured.average_precision == pytest.approx(average_precision_score(truth, score))
    precision, recall, threshold = precision_recall_curve(truth, score)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    assert measured.best_f1 == pytest.approx(f1.max())
    assert measured.best_f1_threshold == pytest.approx(threshold[f1.argmax()])
    assert measured.cross_entropy == pytest.approx(log_loss(truth, np.clip(score.astype(float), 1e-7, 1 - 1e-7)), 1e-4)


def test_a_perfect_map_has_perfect_regions(volume: LabelledVolume) -> None:
    found = map_scores(
        volume.target,
        volume.target.astype(np.float32),
        threshold=0.3,
        volume="v",
        sections=(0, 2),
        passes=8,
        seconds=1.0,
    )
    assert (found.roc_auc, found.average_precision, found.best_f1) == (1.0, pytest.approx(1.0), 1.0)
    assert (found.v_rand.f, found.v_info.f) == (pytest.approx(1.0), pytest.approx(1.0))
    assert found.cross_entropy == pytest.approx(0.0, abs=1e-9)
    assert (found.volume, found.sections, found.passes, found.seconds) == ("v", (0, 2), 8, 1.0)


def test_a_worse_map_scores_less(volume: LabelledVolume, blurred: Map, measured: MapScores) -> None:
    holes = blurred.copy()
    holes[:, :, 30:34] = 0
    worse = map_scores(volume.target, holes, threshold=0.5, volume="v", sections=(0, 2), passes=1, seconds=1.0)
    for more in ("roc_auc", "average_precision", "best_f1"):
        assert getattr(worse, more) < getattr(measured, more), more
    assert worse.v_rand.f < measured.v_rand.f
    assert worse.cross_entropy > measured.cross_entropy


def test_regions_are_those_at_the_given_threshold_and_not_at_the_best(volume: LabelledVolume, blurred: Map) -> None:
    best = thinned(section_labels(volume.target), blurred)
    for threshold in (0.1, 0.9):
        found = map_scores(
            volume.target, blurred, threshold=threshold, volume="v", sections=(0, 2), passes=1, seconds=1.0
        )
        (there,) = thinned(section_labels(volume.target), blurred, (threshold,)).rand
        assert (found.v_rand.f, found.v_rand.threshold, found.v_info.threshold) == (there.f, threshold, threshold)
        assert found.v_rand.f < best.v_rand.f


def test_certainty_that_is_wrong_has_a_finite_cost() -> None:
    target = np.array([True, False])
    assert cross_entropy(target, np.array([0.0, 1.0], np.float32)) == pytest.approx(-np.log(1e-7))
    assert cross_entropy(target, np.array([1.0, 0.0], np.float32)) == 0.0


def test_a_thinned_curve_keeps_the_area_and_both_ends(volume: LabelledVolume, blurred: Map) -> None:
    whole = scores.curve(volume.target, blurred)
    thin = thin_curve(whole)
    assert len(thin.recall) == len(thin.precision) == len(thin.false_positive_rate) <= 202
    assert (thin.recall[-1], thin.false_positive_rate[-1]) == (1.0, 1.0)
    assert thin.recall[0] == pytest.approx(whole.recall[0], abs=1e-6)
    area = np.trapezoid([0, *thin.recall], [0, *thin.false_positive_rate])
    assert area == pytest.approx(scores.roc_auc(whole), abs=2e-3)
