"""From boundary map to labels, section by section."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import label
from skimage.morphology import local_maxima
from skimage.segmentation import watershed

Mask = NDArray[np.bool_]
Labels = NDArray[np.uint64]


def section_labels(boundary: Mask) -> Labels:
    """Number the regions that a boundary encloses: 4-connected components of what is no boundary, per section.

    Args:
        boundary: True = boundary (z, y, x).

    Returns:
        Labels of the same shape, none of them in two sections; 0 = boundary.

    Raises:
        ValueError: a boundary that is not boolean, or not (z, y, x).
    """
    _require_boundary(boundary)
    return section_components(~boundary)


def section_components(labels: NDArray[Any]) -> Labels:
    """Number the pieces into which sections cut each label: 4-connected pixels of one label other than 0.

    A neuron that branches has several profiles in one section; in two dimensions they are different segments.

    Args:
        labels: integer or boolean (z, y, x); 0 = none.

    Returns:
        Labels of the same shape, none of them in two sections; 0 = none.

    Raises:
        ValueError: labels that are neither, or not (z, y, x).
    """
    if labels.ndim != 3 or labels.dtype.kind not in "iub":
        raise ValueError(f"labels are {labels.dtype} of shape {labels.shape}; they must be integer ids (z, y, x)")
    pieces = np.zeros(labels.shape, np.uint64)
    count = 0
    for section, numbered in zip(labels, pieces, strict=True):
        found = label(section, background=0, connectivity=1)
        numbered[:] = np.where(found, found + count, 0)
        count += int(found.max(initial=0))
    return pieces


def thinned_regions(boundary: Mask) -> NDArray[np.int32]:
    """Regions of one section with the boundary between them thinned to a line one pixel wide.

    Every 4-connected component of what is no boundary grows into the boundary until it meets another; what lies
    between two of them stays label 0.  Membranes that end inside a region vanish.  This is the watershed of the binary
    map by flooding (Vincent and Soille 1991), by which the published script of ISBI 2012 thins.  On a binary map,
    flooding proceeds by city-block distance, for no shortest way to the nearest region crosses another one: each
    boundary pixel belongs to its nearest region, which a distance transform finds without a queue.  Of two neighbours
    of different regions the one farther from its region becomes the line; at equal distance, where flooding decides by
    the order of its queue, the one of the higher label.

    Args:
        boundary: True = boundary (y, x).

    Returns:
        Labels from 1 of the same shape; 0 = line.  One region, without a line, where all is boundary.

    Raises:
        ValueError: a boundary that is not boolean, or not (y, x).
    """
    if boundary.ndim != 2 or boundary.dtype != bool:
        raise ValueError(f"boundary is {boundary.dtype} of shape {boundary.shape}; it must be boolean (y, x)")
    seeds, count = ndimage.label(~boundary)  # 4-connected
    if count < 2:
        return np.ones(boundary.shape, np.int32)
    distance, (y, x) = ndimage.distance_transform_cdt(boundary, "taxicab", return_indices=True)
    regions: NDArray[np.int32] = seeds[y, x]
    # Larger = becomes the line before its neighbour does.
    rank = distance.astype(np.int64) * (count + 1) + regions
    line = np.zeros(boundary.shape, bool)
    for one, other in (((slice(None, -1),), (slice(1, None),)), ((..., slice(None, -1)), (..., slice(1, None)))):
        meet = regions[one] != regions[other]
        first = rank[one] > rank[other]
        line[one] |= meet & first
        line[other] |= meet & ~first
    regions[line] = 0
    return regions


def watershed_sections(probability: NDArray[np.floating[Any]], *, threshold: float = 0.5, sigma: float = 2.0) -> Labels:
    """Fragments of each section by a watershed seeded by the distance transform.

    Seeds are the maxima of the distance to the thresholded boundary, smoothed; from them the probability is flooded.
    Fragments fill the section, no line between them.

    Source: Beier et al. 2017, Nature Methods 14:101, supplement ("distance transform watershed").

    Args:
        probability: of boundary, in [0, 1] (z, y, x).
        threshold: pixels at or above it are boundary for the distance.
        sigma: of the Gaussian that smooths the distance before its maxima are taken, in pixels; more means fewer and
            larger fragments; 0 = none.

    Returns:
        Labels of the same shape, none of them in two sections; 0 = none, in sections that are all boundary.

    Raises:
        ValueError: probabilities outside [0, 1] or not (z, y, x), a threshold outside (0, 1], a negative sigma.
    """
    require_probability(probability)
    if probability.ndim != 3:
        raise ValueError(f"probability has shape {probability.shape}; give one (z, y, x)")
    require_threshold(threshold)
    if not sigma >= 0:
        raise ValueError(f"sigma is {sigma}; it must be 0 (no smoothing) or a width in pixels")
    fragments = np.zeros(probability.shape, np.uint64)
    count = 0
    for section, numbered in zip(probability, fragments, strict=True):
        seeds, found = _seeds(section >= threshold, sigma)
        if found:
            numbered[:] = watershed(section, seeds, connectivity=1) + count
            count += found
    return fragments


def _seeds(boundary: Mask, sigma: float) -> tuple[NDArray[np.int32], int]:
    """Numbered plateaus of the largest distance to the boundary, and how many there are."""
    if not boundary.any():
        return np.ones(boundary.shape, np.int32), 1
    distance = ndimage.distance_transform_edt(~boundary)
    # Smoothing leaks into the boundary, where no seed belongs.
    peaks = local_maxima(ndimage.gaussian_filter(distance, sigma)) & ~boundary
    seeds: tuple[NDArray[np.int32], int]
    seeds = ndimage.label(peaks, np.ones((3, 3))) if peaks.any() else ndimage.label(~boundary)
    return seeds


def require_probability(probability: NDArray[Any]) -> None:
    """Refuse what is no map of probabilities.

    Raises:
        ValueError: integers, or values outside [0, 1].
    """
    if probability.dtype.kind != "f":
        raise ValueError(
            f"probability is {probability.dtype}; it must be floating-point in [0, 1]: divide a uint8 map by 255"
        )
    if probability.size and not (probability.min() >= 0 and probability.max() <= 1):  # false for NaN, too
        raise ValueError(
            f"probability is in [{probability.min():g}, {probability.max():g}]; it must be in [0, 1]: "
            "put logits through a sigmoid"
        )


def require_threshold(threshold: float) -> None:
    """Refuse a threshold at which everything, or nothing, is boundary.

    Raises:
        ValueError: outside (0, 1].
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold is {threshold}; it must be in (0, 1], for pixels at or above it are boundary")


def _require_boundary(boundary: Mask) -> None:
    if boundary.ndim != 3 or boundary.dtype != bool:
        raise ValueError(f"boundary is {boundary.dtype} of shape {boundary.shape}; it must be boolean (z, y, x)")
