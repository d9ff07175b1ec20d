"""ROC AUC, average precision and best F1 of a probability map against a binary target.

numpy only, so that the demo can score without the training packages; the tests hold these to scikit-learn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Curve:
    """Counts at every distinct threshold, highest first: pixels at or above it are called boundary.

    Attributes:
        threshold: the distinct probabilities, descending.
        true_positives, false_positives: cumulative counts at those thresholds.
        positives, negatives: pixels of each class.
    """

    threshold: NDArray[np.float64]
    true_positives: NDArray[np.int64]
    false_positives: NDArray[np.int64]
    positives: int
    negatives: int

    @property
    def precision(self) -> NDArray[np.float64]:
        """TP / (TP + FP)."""
        return np.asarray(self.true_positives / (self.true_positives + self.false_positives))

    @property
    def recall(self) -> NDArray[np.float64]:
        """TP / P, the true positive rate."""
        return np.asarray(self.true_positives / self.positives)

    @property
    def false_positive_rate(self) -> NDArray[np.float64]:
        """FP / N."""
        return np.asarray(self.false_positives / self.negatives)


def curve(target: ArrayLike, probability: ArrayLike) -> Curve:
    """Count true and false positives at every distinct threshold.

    Args:
        target: boolean, True = boundary; any shape.
        probability: finite values of the same shape.

    Raises:
        ValueError: different shapes, values that are not finite, or a target of one class only.
    """
    truth = np.asarray(target, dtype=bool).ravel()
    score = np.asarray(probability).ravel()
    if truth.shape != score.shape:
        raise ValueError(f"target has {truth.size} pixels and probability {score.size}; they must be the same")
    if not np.all(np.isfinite(score)):
        raise ValueError("probability holds NaN or infinite values; every pixel needs a finite one to be ranked")
    positives = int(truth.sum())
    negatives = truth.size - positives
    if not positives or not negatives:
        raise ValueError(f"target has {positives} boundary pixels of {truth.size}; both classes must occur")
    order = np.argsort(score, kind="stable")[::-1]  # unsigned values have no negative to sort by
    score, truth = score[order], truth[order]
    last_of_tie = np.append(np.flatnonzero(np.diff(score)), score.size - 1)
    hits = np.cumsum(truth, dtype=np.int64)[last_of_tie]
    return Curve(score[last_of_tie].astype(np.float64), hits, last_of_tie + 1 - hits, positives, negatives)


def roc_auc(c: Curve) -> float:
    """Area under the ROC curve by the trapezoidal rule: the chance that a boundary pixel outranks another."""
    tpr = np.concatenate([[0.0], c.recall])
    fpr = np.concatenate([[0.0], c.false_positive_rate])
    return float(np.sum(np.diff(fpr) * (tpr[1:] + tpr[:-1]) / 2))


def average_precision(c: Curve) -> float:
    """``sum_n (R_n - R_n-1) P_n``: precision averaged over recall, without interpolation."""
    return float(np.sum(np.diff(c.recall, prepend=0.0) * c.precision))


def best_f1(c: Curve) -> tuple[float, float]:
    """Largest ``2 P R / (P + R)`` over all thresholds, and the threshold that gives it."""
    f1 = 2 * c.true_positives / (c.positives + c.true_positives + c.false_positives)
    best = int(np.argmax(f1))
    return float(f1[best]), float(c.threshold[best])
