"""How two segmentations of the same pixels overlap: the table from which their scores are computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Contingency:
    """Pixel counts of the segments of a true and of a proposed segmentation, and of their overlaps.

    Only foreground counts: pixels with a true label.  Label 0 of the proposal means "in no segment"; such a pixel is
    a segment of its own, as in the published scripts of ISBI 2012 and SNEMI3D.

    Attributes:
        joint: n_ij > 0, the pixels that proposed segment i shares with true segment j, in no particular order.
        truth: the pixels of each true segment.
        proposal: the counted pixels of each proposed segment with a label.
        singles: counted pixels that the proposal leaves without a label.
    """

    joint: Counts
    truth: Counts
    proposal: Counts
    singles: int

    @property
    def pixels(self) -> int:
        """Pixels that were counted."""
        return int(self.truth.sum())


def contingency(
    truth: NDArray[Any],
    proposal: NDArray[Any],
    mask: NDArray[np.bool_] | None = None,
    *,
    zero_is_a_segment: bool = False,
) -> Contingency:
    """Count the overlaps of two segmentations.

    Args:
        truth: integer labels of any shape; 0 = not counted.
        proposal: integer labels of the same shape; 0 = in no segment.
        mask: True = counted, if there is a true label; of the same shape.
        zero_is_a_segment: take the proposal's 0 as one label like the others.

    Raises:
        ValueError: labels that are no integers >= 0, or shapes that differ.
    """
    for name, labels in (("truth", truth), ("proposal", proposal)):
        if labels.dtype.kind not in "iu" or (labels.size and labels.min() < 0):
            raise ValueError(f"{name} holds {_content(labels)}; labels must be integers >= 0: give a segmentation")
    for name, other in (("proposal", proposal), ("mask", mask)):
        if other is not None and other.shape != truth.shape:
            raise ValueError(f"{name} has shape {other.shape}, truth {truth.shape}; give the same pixels of both")
    if mask is not None and mask.dtype != bool:
        raise ValueError(f"mask is {mask.dtype}; it must be boolean, True where pixels count")
    counted = truth != 0
    if mask is not None:
        counted &= mask
    true, proposed = truth[counted], proposal[counted]
    labelled = slice(None) if zero_is_a_segment else proposed != 0
    paired = proposed[labelled]
    return Contingency(
        joint=_pair_counts(true[labelled], paired),
        truth=_counts(true),
        proposal=_counts(paired),
        singles=true.size - paired.size,
    )


def pooled(tables: Sequence[Contingency]) -> Contingency:
    """One table of several sections; no segment continues from one section into another."""
    return Contingency(
        joint=np.concatenate([table.joint for table in tables]),
        truth=np.concatenate([table.truth for table in tables]),
        proposal=np.concatenate([table.proposal for table in tables]),
        singles=sum(table.singles for table in tables),
    )


def _content(labels: NDArray[Any]) -> str:
    return f"{labels.dtype}, least value {labels.min()}" if labels.size else str(labels.dtype)


def _counts(labels: NDArray[Any]) -> Counts:
    """How often each label occurs."""
    if not labels.size:
        return np.zeros(0, np.int64)
    # Counting in place is many times as fast as sorting; where labels are too sparse for it, it would take memory.
    if int(labels.max()) <= labels.size:
        counts = np.bincount(labels.astype(np.int64))
        return counts[counts > 0]
    return np.unique(labels, return_counts=True)[1]


def _pair_counts(true: NDArray[Any], proposed: NDArray[Any]) -> Counts:
    """How often each pair occurs."""
    if not true.size:
        return np.zeros(0, np.int64)
    rows, columns = (labels - labels.min() for labels in (proposed, true))  # labels of a section may start anywhere
    if (int(rows.max()) + 1) * (int(columns.max()) + 1) < 2**63:
        return _counts(rows.astype(np.int64) * (int(columns.max()) + 1) + columns.astype(np.int64))
    return _pair_counts(*(np.unique(labels, return_inverse=True)[1] for labels in (true, proposed)))
