from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import waterz
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from skimage import metrics as skimage_metrics
from sklearn.metrics import homogeneity_completeness_v_measure

from emboundary.training.metrics import (
    THRESHOLDS,
    CremiScore,
    SplitMerge,
    ThinnedScore,
    adapted_rand_error,
    boundary_scores,
    cremi_score,
    thinned,
    v_info,
    v_rand,
    variation_of_information,
)
from emboundary.training.scoring.segmentation import section_components, section_labels, thinned_regions
from emboundary.training.synthetic import membranes

Labels = NDArray[Any]

# Both with label 0: pixels that do not count, and pixels in no segment.
PAIRS = st.tuples(
    arrays(np.uint64, (2, 3, 4), elements=st.integers(0, 4)), arrays(np.uint64, (2, 3, 4), elements=st.integers(0, 4))
)


def every_unlabelled_pixel_alone(labels: Labels) -> Labels:
    alone = labels.copy()
    alone[labels == 0] = 1000 + np.arange(np.count_nonzero(labels == 0))
    return alone


def rand_by_pairs(truth: Labels, proposal: Labels, alpha: float) -> tuple[float, float, float]:
    """The three Rand scores by going through all ordered pairs of counted pixels."""
    pixels = [(t, p) for t, p in zip(truth.flat, every_unlabelled_pixel_alone(proposal).flat, strict=True) if t]
    in_truth = in_proposal = in_both = 0
    for (t, p), (other_t, other_p) in itertools.product(pixels, repeat=2):
        in_truth += t == other_t
        in_proposal += p == other_p
        in_both += t == other_t and p == other_p
    return in_both / in_truth, in_both / in_proposal, in_both / (alpha * in_proposal + (1 - alpha) * in_truth)


def near(score: SplitMerge, *expected: float) -> None:
    assert (score.split, score.merge, score.f) == pytest.approx(expected, abs=1e-12)


@settings(deadline=None, max_examples=60)
@given(PAIRS, st.floats(0, 1))
def test_v_rand_counts_pairs_of_pixels(pair: tuple[Labels, Labels], alpha: float) -> None:
    truth, proposal = pair
    assume(truth.any())
    near(v_rand(truth, proposal, alpha), *rand_by_pairs(truth, proposal, alpha))


@settings(deadline=None, max_examples=60)
@given(PAIRS)
def test_v_rand_has_the_halves_that_waterz_gives(pair: tuple[Labels, Labels]) -> None:
    truth, proposal = pair
    assume(truth.any())
    by_waterz = waterz.evaluate(every_unlabelled_pixel_alone(proposal), truth)
    ours = v_rand(truth, proposal)
    assert (ours.split, ours.merge) == pytest.approx((by_waterz["rand_split"], by_waterz["rand_merge"]))


@settings(deadline=None, max_examples=60)
@given(PAIRS)
def test_v_info_is_completeness_homogeneity_and_v_measure(pair: tuple[Labels, Labels]) -> None:
    truth, proposal = pair
    assume(truth.any())
    counted = truth != 0
    homogeneity, completeness, v_measure = homogeneity_completeness_v_measure(
        truth[counted], every_unlabelled_pixel_alone(proposal)[counted]
    )
    near(v_info(truth, proposal), completeness, homogeneity, v_measure)


@settings(deadline=None, max_examples=60)
@given(PAIRS)
def test_variation_of_information_is_that_of_scikit_image(pair: tuple[Labels, Labels]) -> None:
    truth, proposal = pair
    assume(truth.any())
    expected = skimage_metrics.variation_of_information(truth, proposal, ignore_labels=[0])
    assert variation_of_information(truth, proposal) == pytest.approx(tuple(expected), abs=1e-12)


@settings(deadline=None, max_examples=60)
@given(PAIRS)
def test_the_adapted_rand_error_is_that_of_scikit_image_but_for_pairs_of_a_pixel_with_itself(
    pair: tuple[Labels, Labels],
) -> None:
    truth, proposal = pair
    proposal = proposal + np.uint64(1)  # scikit-image takes the proposal's 0 as a segment
    n = np.count_nonzero(truth)
    sums = [
        float(np.sum(skimage_metrics.contingency_table(truth, proposal, ignore_labels=[0]).sum(axis=axis).A1 ** 2))
        for axis in (0, 1)
    ]
    assume(min(sums) > n)  # or there are no other pairs, and scikit-image divides by none
    in_both = (1 - adapted_rand_error(truth, proposal)) * sum(sums) / 2
    without_self = 1 - (in_both - n) / (sum(sums) / 2 - n)
    assert without_self == pytest.approx(skimage_metrics.adapted_rand_error(truth, proposal)[0], abs=1e-9)


@settings(deadline=None, max_examples=60)
@given(arrays(np.uint64, (2, 3, 4), elements=st.integers(0, 4)), st.permutations(range(1, 5)))
def test_a_perfect_proposal_scores_1_whatever_its_labels_are_called(truth: Labels, names: list[int]) -> None:
    assume(truth.any())
    proposal = np.array([7, *names], np.uint64)[truth] * np.uint64(10**15)  # the 7 lies where nothing counts
    near(v_rand(truth, proposal), 1, 1, 1)
    near(v_info(truth, proposal), 1, 1, 1)
    assert variation_of_information(truth, proposal) == pytest.approx((0, 0), abs=1e-12)
    assert cremi_score(truth, proposal).score == pytest.approx(0, abs=1e-6)


TWO_HALVES = np.array([[[1, 1, 2, 2]]])
ONE = np.array([[[5, 5, 5, 5]]])


def test_a_merge_costs_the_merge_half_alone() -> None:
    near(v_rand(TWO_HALVES, ONE), 1, 1 / 2, 1 / (0.5 * 2 + 0.5 * 1))
    near(v_info(TWO_HALVES, ONE), 1, 0, 0)
    assert variation_of_information(TWO_HALVES, ONE) == pytest.approx((0, 1))


def test_a_split_costs_the_split_half_alone() -> None:
    near(v_rand(ONE, TWO_HALVES), 1 / 2, 1, 1 / (0.5 * 2 + 0.5 * 1))
    near(v_info(ONE, TWO_HALVES), 0, 1, 0)
    assert variation_of_information(ONE, TWO_HALVES) == pytest.approx((1, 0))


def test_a_worked_example() -> None:
    truth = np.array([[1, 1, 1, 1, 2, 2, 2, 2, 0, 0]])
    proposal = np.array([[1, 1, 2, 2, 2, 2, 2, 0, 1, 2]])
    # Of 8 pixels p = 2, 2 | 3, 1 alone; s = 2, 5, 1; t = 4, 4.
    near(v_rand(truth, proposal), 18 / 32, 18 / 30, 18 / 31)
    h_s = 2 / 8 * math.log2(8 / 2) + 5 / 8 * math.log2(8 / 5) + 1 / 8 * math.log2(8)
    h_both = 2 * 2 / 8 * math.log2(8 / 2) + 3 / 8 * math.log2(8 / 3) + 1 / 8 * math.log2(8)
    shared = 1 + h_s - h_both
    near(v_info(truth, proposal), shared / h_s, shared, shared / ((h_s + 1) / 2))
    assert variation_of_information(truth, proposal) == pytest.approx((h_both - 1, h_both - h_s))


def test_alpha_goes_from_split_to_merge() -> None:
    truth, proposal = np.array([1, 1, 1, 2, 2, 2]), np.array([1, 1, 2, 2, 2, 2])
    for measure in (v_rand, v_info):
        score = measure(truth, proposal)
        assert score.split != pytest.approx(score.merge)
        assert measure(truth, proposal, 0.0).f == pytest.approx(score.split)
        assert measure(truth, proposal, 1.0).f == pytest.approx(score.merge)
        assert score.f == pytest.approx(2 / (1 / score.split + 1 / score.merge))


def test_the_cremi_score_is_the_geometric_mean_of_two_errors() -> None:
    truth, proposal = np.array([1, 1, 2, 2]), np.array([1, 2, 2, 2])
    split, merge = variation_of_information(truth, proposal)
    score = cremi_score(truth, proposal)
    # p = 1, 1, 2; s = 1, 3; t = 2, 2
    assert score == CremiScore(split, merge, pytest.approx(1 - 6 / 9))
    assert score.score == pytest.approx(math.sqrt((1 - 6 / 9) * (split + merge)))


def test_the_proposals_zero_is_a_segment_in_the_variation_of_information_and_many_elsewhere() -> None:
    truth, proposal = np.array([1, 1, 1, 1]), np.array([0, 0, 0, 0])
    assert variation_of_information(truth, proposal) == (0, 0)
    assert v_rand(truth, proposal).split == 4 / 16
    assert v_info(truth, proposal).split == 0


@settings(deadline=None, max_examples=60)
@given(PAIRS, arrays(bool, (2, 3, 4)))
def test_what_is_masked_is_as_if_it_had_no_true_label(pair: tuple[Labels, Labels], mask: NDArray[np.bool_]) -> None:
    truth, proposal = pair
    erased = np.where(mask, truth, 0)
    assume(erased.any())
    for measure in (v_rand, v_info, variation_of_information, adapted_rand_error, cremi_score):
        assert measure(truth, proposal, mask=mask) == measure(erased, proposal)


def test_labels_of_64_bits_and_sparse_ones_are_told_apart() -> None:
    truth = np.array([2**63 + 1, 2**63 + 1, 2**63 + 2, 7], np.uint64)
    proposal = np.array([2**64 - 1, 2**64 - 2, 2**64 - 2, 1], np.uint64)
    near(v_rand(truth, proposal), 4 / 6, 4 / 6, 4 / 6)


@pytest.mark.parametrize("measure", [v_rand, v_info, variation_of_information, adapted_rand_error, cremi_score])
def test_what_cannot_be_scored_is_refused(measure: Any) -> None:
    truth = np.ones((2, 3), np.int64)
    with pytest.raises(
        ValueError, match=r"^proposal has shape \(3, 2\), truth \(2, 3\); give the same pixels of both$"
    ):
        measure(truth, truth.T)
    with pytest.raises(ValueError, match=r"^mask has shape \(6,\), truth \(2, 3\); give the same pixels of both$"):
        measure(truth, truth, mask=np.ones(6, bool))
    with pytest.raises(ValueError, match=r"^mask is int64; it must be boolean, True where pixels count$"):
        measure(truth, truth, mask=truth)
    with pytest.raises(ValueError, match=r"^truth has no pixel that counts; give labels other than 0, and a mask "):
        measure(truth, truth, mask=np.zeros((2, 3), bool))
    with pytest.raises(ValueError, match=r"^proposal holds int64, least value -1; labels must be integers >= 0: "):
        measure(truth, -truth)
    with pytest.raises(ValueError, match=r"^truth holds float64, least value 1\.0; labels must be integers >= 0: "):
        measure(truth.astype(float), truth)


@pytest.mark.parametrize("measure", [v_rand, v_info])
@pytest.mark.parametrize("alpha", [-0.1, 1.1, math.nan])
def test_alpha_outside_0_to_1_is_refused(measure: Any, alpha: float) -> None:
    with pytest.raises(ValueError, match=rf"^alpha is {alpha}; it must be in \[0, 1\], where 0 weighs splits alone"):
        measure(TWO_HALVES, ONE, alpha)


# Thinned


@pytest.fixture(scope="module")
def target() -> NDArray[np.bool_]:
    return membranes((2, 64, 72), seed=1)[1] > 0


@pytest.fixture(scope="module")
def probability(target: NDArray[np.bool_]) -> NDArray[np.float32]:
    rng = np.random.default_rng(0)
    return np.clip(0.25 + 0.5 * target + rng.normal(0, 0.2, target.shape), 0, 1).astype(np.float32)


def test_the_truth_as_a_map_scores_1_at_every_threshold(target: NDArray[np.bool_]) -> None:
    score = thinned(section_labels(target), target.astype(np.float32))
    assert score.thresholds == THRESHOLDS
    assert score.rand == (SplitMerge(1, 1, 1),) * len(THRESHOLDS)
    for found in score.info:
        near(found, 1, 1, 1)


def test_the_width_of_a_boundary_does_not_matter() -> None:
    labels = np.ones((1, 9, 21), np.int64)
    labels[..., 11:] = 2
    labels[..., 10] = 0
    scores = set()
    for half in range(5):
        probability = np.zeros(labels.shape, np.float32)
        probability[..., 10 - half : 11 + half] = 0.8
        scores.add(thinned(labels, probability, (0.5,)).v_rand)
    assert scores == {SplitMerge(1, 1, 1)}


def test_scores_are_those_of_one_table_of_thinned_sections(
    target: NDArray[np.bool_], probability: NDArray[np.float32]
) -> None:
    truth = section_labels(target)
    score = thinned(truth, probability, (0.4, 0.6))
    for threshold, rand, info in zip(score.thresholds, score.rand, score.info, strict=True):
        regions = np.stack([thinned_regions(section >= threshold) for section in probability]).astype(np.int64)
        regions[1][regions[1] > 0] += regions[0].max()
        near(v_rand(truth, regions), rand.split, rand.merge, rand.f)
        near(v_info(truth, regions), info.split, info.merge, info.f)


def test_one_id_in_two_sections_is_two_segments() -> None:
    neuron = np.ones((2, 4, 4), np.int64)
    assert thinned(neuron, np.zeros(neuron.shape), (0.5,)).v_rand == SplitMerge(1, 1, 1)


def test_the_challenges_script_takes_the_mean_of_sections(
    target: NDArray[np.bool_], probability: NDArray[np.float32]
) -> None:
    truth = section_labels(target)
    mean = thinned(truth, probability, (0.5,), mean_of_sections=True)
    each = [thinned(truth[[z]], probability[[z]], (0.5,)) for z in range(2)]
    assert each[0].v_rand.f != pytest.approx(each[1].v_rand.f)
    near(mean.v_rand, *(np.mean([getattr(s.v_rand, part) for s in each]) for part in ("split", "merge", "f")))
    near(mean.v_info, *(np.mean([getattr(s.v_info, part) for s in each]) for part in ("split", "merge", "f")))


def test_each_score_has_its_own_best_threshold() -> None:
    low, middle, high = (SplitMerge(f, f, f) for f in (0.1, 0.5, 0.9))
    score = ThinnedScore((0.2, 0.4, 0.6), (low, high, high), (high, middle, low))
    assert (score.v_rand, score.v_rand_threshold) == (high, 0.4)
    assert (score.v_info, score.v_info_threshold) == (high, 0.2)


def test_a_threshold_is_boundary_itself() -> None:
    labels = np.array([[[1, 0, 2]]])
    at, below = (np.array([[[0, p, 0]]], np.float32) for p in (0.5, np.nextafter(np.float32(0.5), np.float32(0))))
    assert thinned(labels, at, (0.5,)).v_rand.merge == 1
    assert thinned(labels, below, (0.5,)).v_rand.merge == 1 / 2


def test_a_mask_narrows_what_is_scored(target: NDArray[np.bool_], probability: NDArray[np.float32]) -> None:
    truth = section_labels(target)
    mask = np.random.default_rng(3).random(truth.shape) < 0.5
    assert thinned(truth, probability, mask=mask) == thinned(np.where(mask, truth, 0), probability)


def test_neurons_of_three_dimensions_are_cut_into_profiles_first() -> None:
    fork = np.array([[[3, 0, 3]]])
    probability = (fork == 0).astype(np.float32)
    assert thinned(fork, probability).v_rand.split == 1 / 2
    assert thinned(section_components(fork), probability).v_rand.split == 1


def test_a_map_that_does_not_fit_is_refused(target: NDArray[np.bool_], probability: NDArray[np.float32]) -> None:
    truth = section_labels(target)
    with pytest.raises(ValueError, match=r"^probability has shape \(1, 64, 72\), labels \(2, 64, 72\); both must be "):
        thinned(truth, probability[:1])
    with pytest.raises(ValueError, match=r"^mask has shape \(1, 64, 72\), labels \(2, 64, 72\); give the mask of "):
        thinned(truth, probability, mask=target[:1])
    with pytest.raises(ValueError, match=r"^thresholds is empty; give at least one, in \(0, 1\]$"):
        thinned(truth, probability, ())
    with pytest.raises(ValueError, match=r"^threshold is 0; it must be in \(0, 1\], for pixels at or above it are "):
        thinned(truth, probability, (0,))
    with pytest.raises(ValueError, match=r"^probability is uint8; .*: divide a uint8 map by 255$"):
        thinned(truth, (probability * 255).astype(np.uint8))
    with pytest.raises(ValueError, match=r"^probability is in \[-1, .*; it must be in \[0, 1\]: put logits through a "):
        thinned(truth, np.where(target, -1, probability))


def test_pixel_scores_are_those_of_the_curve() -> None:
    target = np.array([[[True, False], [False, True]]])
    probability = np.array([[[0.9, 0.2], [0.1, 0.8]]], np.float32)
    perfect = boundary_scores(target, probability)
    assert (perfect.roc_auc, perfect.average_precision, perfect.best_f1) == (1.0, 1.0, 1.0)
    assert perfect.threshold == pytest.approx(0.8)
    assert boundary_scores(target, 1 - probability).roc_auc == 0.0
