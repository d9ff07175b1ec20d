"""Which voxels hold no data: the padding that cropping and alignment leave around and inside a volume.

Fill is told from tissue by how it lies, not by its value alone: a dark vesicle has voxels of value 0, too, but not
32 of them in a row.  Rows along x are cut into pieces of 256 voxels, counted from the volume's origin, so that the
answer for a voxel depends on nothing but its own piece, however the volume is stored or read:

    origin
    |------- 256 -------|------- 256 -------|---- the rest ----|        a rest below 32 joins the piece before it
     ##### fill #####       . .  data    .    #### fill ########        runs of at least 32 are fill
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from emboundary.model.geometry import Readable

PIECE = 256
RUN = 32
_FULL_WORD = np.uint64(0x0101010101010101)
RULE = f"left out: runs of at least {RUN} voxels of the fill value along x, within pieces of {PIECE} from the origin"


def fill_value(volume: Readable) -> float:
    """The value that stands for no data: what the file declares, else 0."""
    declared = getattr(volume, "fill_value", None)
    return 0 if declared is None else np.asarray(declared).item()


def whole_pieces(extent: int) -> int:
    """Extent along x less a rest that is too short for a piece of its own."""
    rest = extent % PIECE
    return extent - rest if rest < RUN and extent > PIECE else extent


def fill_mask(block: NDArray[Any], fill: float) -> NDArray[np.bool_] | None:
    """Where a block (z, y, x) holds no data; None: nowhere.

    Args:
        block: begins at a multiple of 256 along x, and ends at one or at the volume's end.
        fill: the value that stands for no data.
    """
    z, y, x = block.shape
    equal: NDArray[np.bool_] = np.equal(block, fill).reshape(z * y, x)
    if equal.all():
        return equal.reshape(block.shape)
    last = x if x % PIECE == 0 else max(0, (whole_pieces(x) - 1) // PIECE * PIECE)
    parts = [(slice(0, last), PIECE), (slice(last, x), x - last)]
    found = [
        (columns, _long_runs(equal[:, columns].reshape(-1, n))) for columns, n in parts if columns.start < columns.stop
    ]
    if all(runs is None for _, runs in found):
        return None
    mask = np.zeros_like(equal)
    for columns, runs in found:
        if runs is not None:
            mask[:, columns] = runs.reshape(z * y, -1)
    return mask.reshape(block.shape)


def _long_runs(pieces: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
    """Voxels (piece, x) in a run that is long enough; None: there is no such run."""
    length = pieces.shape[1]
    run = min(RUN, length)
    if length == PIECE:  # most pieces are soon passed over: a long run fills aligned words of 8 voxels
        candidates = np.flatnonzero((pieces.view(np.uint64) == _FULL_WORD).any(axis=1))
    else:
        candidates = np.arange(len(pieces))
    counts = np.count_nonzero(pieces[candidates], axis=1)
    full, partly = candidates[counts == length], candidates[(counts >= run) & (counts < length)]
    runs = _dilate(_erode(pieces[partly], run), run)
    if not full.size and not runs.any():
        return None
    found = np.zeros_like(pieces)
    found[full] = True
    found[partly] = runs
    return found


def _erode(pieces: NDArray[np.bool_], run: int) -> NDArray[np.bool_]:
    """Where a run of ``run`` set voxels begins, (piece, x - run + 1)."""
    reach = 1
    while reach < run:
        step = min(reach, run - reach)
        pieces = pieces[:, step:] & pieces[:, :-step]
        reach += step
    return pieces


def _dilate(begins: NDArray[np.bool_], run: int) -> NDArray[np.bool_]:
    """The voxels of the runs that begin there, (piece, x)."""
    reach = 1
    while reach < run:
        step = min(reach, run - reach)
        wider = np.zeros((begins.shape[0], begins.shape[1] + step), np.bool_)
        wider[:, :-step] = begins
        wider[:, step:] |= begins
        begins = wider
        reach += step
    return begins
