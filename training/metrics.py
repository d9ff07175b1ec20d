"""Scores of boundary maps and of segmentations, as their sources define them.

Notation: p_ij is the share of the counted pixels that lies in segment i of the proposal S and in segment j of the
truth T, s_i and t_j are its sums over j and over i.  Everything is restricted to the foreground, pixels with a true
label; ``emboundary.training.scoring.foreground`` narrows it further.  A pixel that the proposal leaves without a label
(0) is a segment of its own, except where a source says otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emboundary.model import scores
from emboundary.training.scoring.contingency import Contingency, Counts, contingency, pooled
from emboundary.training.scoring.segmentation import require_probability, require_threshold, thinned_regions

Mask = NDArray[np.bool_]
Labels = NDArray[Any]

# The published script of ISBI 2012 goes in steps of 0.1 (0 and 1 tell no maps apart).  One weak pixel joins two
# regions, and networks that are sure of themselves have most weak pixels below 0.1, so there are more steps there.
THRESHOLDS = (0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class BoundaryScores:
    """How well a probability map ranks boundary pixels above others.

    Attributes:
        roc_auc: area under the ROC curve.
        average_precision: precision averaged over recall.
        best_f1: largest F1 over all thresholds; ``threshold`` gives it.
    """

    roc_auc: float
    average_precision: float
    best_f1: float
    threshold: float


def boundary_scores(target: Mask, probability: NDArray[Any]) -> BoundaryScores:
    """Pixel scores of a map against its target of the same shape, True = boundary.

    Raises:
        ValueError: as ``emboundary.model.scores.curve``.
    """
    curve = scores.curve(target, probability)
    f1, threshold = scores.best_f1(curve)
    return BoundaryScores(scores.roc_auc(curve), scores.average_precision(curve), f1, threshold)


@dataclass(frozen=True)
class SplitMerge:
    """A score of a segmentation in its two halves; 1 is perfect.

    Attributes:
        split: falls with every true segment that is cut (a recall of pairs of pixels that belong together).
        merge: falls with every two true segments that are joined (a precision of such pairs).
        f: both in one; their harmonic mean at alpha = 0.5.
    """

    split: float
    merge: float
    f: float


def v_rand(truth: Labels, proposal: Labels, alpha: float = 0.5, *, mask: Mask | None = None) -> SplitMerge:
    """Foreground-restricted Rand scores.

    ``split = sum p_ij^2 / sum t_j^2``, ``merge = sum p_ij^2 / sum s_i^2``,
    ``f = sum p_ij^2 / (alpha sum s_i^2 + (1 - alpha) sum t_j^2)``: of two random pixels (one may be drawn twice), the
    chance that they share a segment in both.  ``skimage.metrics.adapted_rand_error`` differs by leaving out the pairs
    of a pixel with itself.

    Source: Arganda-Carreras et al. 2015, Frontiers in Neuroanatomy 9:142 (ISBI 2012, foreground-restricted Rand
    scoring).

    Args:
        truth: integer labels of any shape; 0 = not counted.
        proposal: integer labels of the same shape; 0 = in no segment.
        alpha: 0 gives ``split`` as ``f``, 1 gives ``merge``.
        mask: True = counted, if there is a true label.

    Raises:
        ValueError: as ``contingency``; no pixel that counts; alpha outside [0, 1].
    """
    return _v_rand(contingency(truth, proposal, mask), alpha)


def v_info(truth: Labels, proposal: Labels, alpha: float = 0.5, *, mask: Mask | None = None) -> SplitMerge:
    """Foreground-restricted information-theoretic scores.

    With entropies H and the mutual information I of S and T: ``split = I / H(S)``, ``merge = I / H(T)``,
    ``f = I / ((1 - alpha) H(S) + alpha H(T))``.  A quotient of nothing by nothing is 1: a single segment has nothing
    to split or merge.

    Source: Arganda-Carreras et al. 2015, Frontiers in Neuroanatomy 9:142 (ISBI 2012, foreground-restricted
    information theoretic scoring).

    Takes what ``v_rand`` takes.

    Raises:
        ValueError: as ``v_rand``.
    """
    return _v_info(contingency(truth, proposal, mask), alpha)


def adapted_rand_error(truth: Labels, proposal: Labels, *, mask: Mask | None = None) -> float:
    """``1 - V_rand`` at alpha = 0.5; 0 is perfect.

    Source: SNEMI3D (Arganda-Carreras et al. 2015), and CREMI after it.

    Takes what ``v_rand`` takes, but no alpha.

    Raises:
        ValueError: as ``v_rand``.
    """
    return 1 - v_rand(truth, proposal, mask=mask).f


def variation_of_information(truth: Labels, proposal: Labels, *, mask: Mask | None = None) -> tuple[float, float]:
    """``(H(S|T), H(T|S))`` in bits: the split error and the merge error; 0 is perfect.

    The proposal's 0 is one segment like the others, as in CREMI's script and in scikit-image.

    Source: Meila 2007, Journal of Multivariate Analysis 98:873; its use on neurons: Nunez-Iglesias et al. 2013.

    Takes what ``v_rand`` takes, but no alpha.

    Raises:
        ValueError: as ``contingency``; no pixel that counts.
    """
    of_truth, of_proposal, of_both = _entropies(contingency(truth, proposal, mask, zero_is_a_segment=True))
    return max(of_both - of_truth, 0.0), max(of_both - of_proposal, 0.0)


@dataclass(frozen=True)
class CremiScore:
    """The neuron segmentation score of the CREMI challenge; 0 is perfect.

    Attributes:
        voi_split, voi_merge: variation of information, in bits.
        adapted_rand: the adapted Rand error.
    """

    voi_split: float
    voi_merge: float
    adapted_rand: float

    @property
    def score(self) -> float:
        """``sqrt(adapted_rand * (voi_split + voi_merge))``, the geometric mean of the two errors."""
        return math.sqrt(self.adapted_rand * (self.voi_split + self.voi_merge))


def cremi_score(truth: Labels, proposal: Labels, *, mask: Mask | None = None) -> CremiScore:
    """Errors of a segmentation as CREMI ranks them; CREMI itself masks with a border tolerance of 25 nm.

    Source: the evaluation of the CREMI challenge (MICCAI 2016).

    Takes what ``v_rand`` takes, but no alpha.

    Raises:
        ValueError: as ``v_rand``.
    """
    split, merge = variation_of_information(truth, proposal, mask=mask)
    return CremiScore(split, merge, adapted_rand_error(truth, proposal, mask=mask))


@dataclass(frozen=True)
class ThinnedScore:
    """Scores of the regions that a boundary map encloses, at each threshold.

    Attributes:
        thresholds: pixels at or above one are boundary.
        rand, info: V_rand and V_info at each.
    """

    thresholds: tuple[float, ...]
    rand: tuple[SplitMerge, ...]
    info: tuple[SplitMerge, ...]

    @property
    def v_rand(self) -> SplitMerge:
        """V_rand at its best threshold."""
        return self.rand[_best(self.rand)]

    @property
    def v_rand_threshold(self) -> float:
        """The lowest threshold with the largest V_rand."""
        return self.thresholds[_best(self.rand)]

    @property
    def v_info(self) -> SplitMerge:
        """V_info at its best threshold."""
        return self.info[_best(self.info)]

    @property
    def v_info_threshold(self) -> float:
        """The lowest threshold with the largest V_info."""
        return self.thresholds[_best(self.info)]


def thinned(
    labels: Labels,
    probability: NDArray[np.floating[Any]],
    thresholds: Sequence[float] = THRESHOLDS,
    *,
    mask: Mask | None = None,
    mean_of_sections: bool = False,
) -> ThinnedScore:
    """V_rand and V_info of a boundary map, thinned, at their best thresholds.

    At each threshold every section is cut into its regions with the boundary between them thinned to one pixel
    (``emboundary.training.scoring.segmentation.thinned_regions``); pixels of that line are segments of their own.  All
    sections are counted in one table, in which no segment continues into the next section.

    Source: Arganda-Carreras et al. 2015, Frontiers in Neuroanatomy 9:142 (ISBI 2012, scores after border thinning).
    The challenge's published script takes the mean of the sections' scores instead: ``mean_of_sections``.

    Args:
        labels: integer labels (z, y, x); 0 = not counted.  In each section one label is one segment: pass neurons in
            3D, which may show several profiles, through ``section_components``, and a membrane map through
            ``section_labels`` (both in ``emboundary.training.scoring.segmentation``).
        probability: of boundary, in [0, 1], of the same shape.
        thresholds: ascending or not.
        mask: True = counted, if there is a true label.
        mean_of_sections: score each section, then take means; each section must have a pixel that counts.

    Raises:
        ValueError: as ``contingency``; labels that are not (z, y, x); no thresholds, or one outside (0, 1];
            probabilities outside [0, 1]; no pixel that counts.
    """
    require_probability(probability)
    if labels.ndim != 3 or probability.shape != labels.shape:
        raise ValueError(
            f"probability has shape {probability.shape}, labels {labels.shape}; both must be (z, y, x) and the same"
        )
    if mask is not None and mask.shape != labels.shape:
        raise ValueError(f"mask has shape {mask.shape}, labels {labels.shape}; give the mask of these labels")
    if not len(thresholds):
        raise ValueError("thresholds is empty; give at least one, in (0, 1]")
    for threshold in thresholds:
        require_threshold(threshold)
    masks = [None] * len(labels) if mask is None else list(mask)
    rand, info = [], []
    for threshold in thresholds:
        tables = [
            contingency(true, thinned_regions(section >= threshold), counted)
            for true, section, counted in zip(labels, probability, masks, strict=True)
        ]
        if not mean_of_sections:
            tables = [pooled(tables)]
        rand.append(_mean([_v_rand(table) for table in tables]))
        info.append(_mean([_v_info(table) for table in tables]))
    return ThinnedScore(tuple(float(t) for t in thresholds), tuple(rand), tuple(info))


def _mean(found: Sequence[SplitMerge]) -> SplitMerge:
    split, merge, f = (sum(values) / len(found) for values in zip(*map(astuple, found), strict=True))
    return SplitMerge(split, merge, f)


def _best(curve: Sequence[SplitMerge]) -> int:
    return int(np.argmax([score.f for score in curve]))


def _v_rand(table: Contingency, alpha: float = 0.5) -> SplitMerge:
    _require(table, alpha)
    # Pixels without a label are segments of one pixel, each inside one true segment.
    both = _sum_of_squares(table.joint) + table.singles
    proposal = _sum_of_squares(table.proposal) + table.singles
    truth = _sum_of_squares(table.truth)
    return SplitMerge(both / truth, both / proposal, both / (alpha * proposal + (1 - alpha) * truth))


def _v_info(table: Contingency, alpha: float = 0.5) -> SplitMerge:
    _require(table, alpha)
    of_truth, of_proposal, of_both = _entropies(table)
    shared = max(of_truth + of_proposal - of_both, 0.0)
    return SplitMerge(
        _ratio(shared, of_proposal),
        _ratio(shared, of_truth),
        _ratio(shared, (1 - alpha) * of_proposal + alpha * of_truth),
    )


def _entropies(table: Contingency) -> tuple[float, float, float]:
    """H(T), H(S) and H(S, T), in bits."""
    _require(table)
    return (
        _entropy(table.truth, 0),
        _entropy(table.proposal, table.singles),
        _entropy(table.joint, table.singles),
    )


def _entropy(sizes: Counts, singles: int) -> float:
    """Of segments of these sizes and of so many of one pixel."""
    if sizes.size + singles < 2:
        return 0.0  # exactly, for what is divided by it
    total = float(sizes.sum() + singles)
    # A segment of one pixel adds 1 log 1 = 0 to the sum.
    return math.log2(total) - float(np.sum(sizes * np.log2(sizes))) / total


def _sum_of_squares(sizes: Counts) -> float:
    return float(np.sum(sizes.astype(np.float64) ** 2))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 1.0


def _require(table: Contingency, alpha: float = 0.5) -> None:
    if not table.pixels:
        raise ValueError("truth has no pixel that counts; give labels other than 0, and a mask that leaves some")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}; it must be in [0, 1], where 0 weighs splits alone and 1 merges alone")
