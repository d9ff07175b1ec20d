"""From fragments of sections to neurons in a stack."""

from __future__ import annotations

import ctypes
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

import numpy as np
import waterz
from numpy.typing import NDArray

from emboundary.training.scoring.segmentation import Labels, require_probability, require_threshold


def agglomerate(
    probability: NDArray[np.floating[Any]], fragments: Labels, threshold: float, *, between_sections: bool = True
) -> Labels:
    """Join fragments that touch, the weakest boundary first, while the boundary between two is weaker than a threshold.

    The boundary between two fragments is as strong as the mean, over the pairs of 6-neighbouring voxels through which
    they touch, of the larger probability of each pair; between sections these are the pixels where the fragments
    overlap.  It is computed again after each join.

    Source: region agglomeration by mean affinity, Funke et al. 2019, IEEE TPAMI 41:1669; waterz is its authors'.

    Args:
        probability: of boundary, in [0, 1] (z, y, x).
        fragments: unsigned or signed integer labels of the same shape, as ``watershed_sections`` gives; 0 = none.
        threshold: in (0, 1]; more joins more.
        between_sections: False = join within sections only, for scores in two dimensions; labels are then distinct per
            section, even where fragments were not.

    Returns:
        Labels of the same shape, from 1 without gaps; 0 = none.

    Raises:
        ValueError: probabilities or a threshold out of range, fragments that are no labels >= 0, shapes that differ.
    """
    require_probability(probability)
    require_threshold(threshold)
    if fragments.dtype.kind not in "iu" or (fragments.size and fragments.min() < 0):
        raise ValueError(f"fragments is {fragments.dtype}; it must hold integer labels >= 0, 0 where there is none")
    if probability.ndim != 3 or probability.shape != fragments.shape:
        raise ValueError(
            f"probability has shape {probability.shape}, fragments {fragments.shape}; "
            "both must be (z, y, x) and the same"
        )
    if between_sections:
        return _joined(probability, fragments, threshold)
    neurites = np.zeros(fragments.shape, np.uint64)
    count = 0
    for z in range(len(fragments)):
        joined = _joined(probability[z : z + 1], fragments[z : z + 1], threshold)
        neurites[z] = np.where(joined[0], joined[0] + np.uint64(count), 0)
        count += int(joined.max(initial=0))
    return neurites


def _joined(probability: NDArray[np.floating[Any]], fragments: Labels, threshold: float) -> Labels:
    ids = _numbered(fragments)
    if ids.max(initial=0) < 2:
        return ids
    with _stdout_silenced():
        (joined,) = waterz.agglomerate(_affinities(probability), [float(threshold)], fragments=ids)
    return _numbered(np.asarray(joined))


def _affinities(probability: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """1 - the larger probability of each voxel and the one before it along z, y and x: (3, z, y, x)."""
    affinities = np.zeros((3, *probability.shape), np.float32)
    for axis, affinity in enumerate(affinities):
        here, before = (np.moveaxis(probability, axis, 0)[part] for part in (slice(1, None), slice(None, -1)))
        np.moveaxis(affinity, axis, 0)[1:] = 1 - np.maximum(here, before)
    return affinities


def _numbered(labels: NDArray[Any]) -> Labels:
    """The same labels from 1 without gaps; 0 stays."""
    found, places = np.unique(labels, return_inverse=True)
    first = 0 if found.size and found[0] == 0 else 1
    return (places + first).reshape(labels.shape).astype(np.uint64)


@contextmanager
def _stdout_silenced() -> Iterator[None]:
    """Drop what waterz prints, for a command's own output must stay readable by programs.

    Its C++ code writes to the file descriptor by way of the C library's buffer, past ``sys.stdout``.
    """
    c_library = ctypes.CDLL(None)
    sys.stdout.flush()
    c_library.fflush(None)
    kept = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        c_library.fflush(None)
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)
