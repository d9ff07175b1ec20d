"""How large a tile may be on a GPU: tried once, on this GPU with this network, and remembered.

Large tiles waste less on halos: a tile of side t costs ``((t + 2 halo) / t)^2`` of its voxels.  What fits is found by
running, largest first, since how much memory a network needs depends on which algorithms the runtime chooses.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import platformdirs

from emboundary.model.geometry import Footprint, round_up
from emboundary.service.engine.lanes import Lanes
from emboundary.service.errors import DeviceError

# Sides before the halo; beyond the largest, halos cost less than a tenth, and blocks in host memory become large.
SIDES = (2048, 1536, 1024, 768, 512, 256)


def largest_tile(lanes: Lanes, footprint: Footprint, facts: Mapping[str, Any], folder: Path | None = None) -> int:
    """The largest side of ``SIDES`` that runs on all lanes at once.

    Args:
        lanes: of the network; opened anew where a side did not fit.
        footprint: of the network.
        facts: everything that the answer depends on: GPU, memory, network, precision, runtime.
        folder: where answers are remembered; None: the user's cache.

    Raises:
        DeviceError: not even the smallest fits, with the runtime's own reason.
    """
    file = (folder or platformdirs.user_cache_path("emboundary")) / "tiles" / f"{_digest(facts)}.json"
    known = _remembered(file)
    tried = [side for side in SIDES if known is None or side <= known]
    for side in tried:
        whole = round_up(side, footprint.stride[1]) + 2 * footprint.halo[1]
        try:
            lanes.warm(1, whole, whole)
        except DeviceError:
            if side == tried[-1]:
                raise
            lanes.reopen()  # what was taken before memory ran out is given back
            continue
        if side != known:
            _remember(file, side, facts)
        return side
    raise AssertionError("unreachable: the last side returns or raises")


def _digest(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def _remembered(file: Path) -> int | None:
    try:
        side = json.loads(file.read_text())["tile"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return side if side in SIDES else None


def _remember(file: Path, side: int, facts: Mapping[str, Any]) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_suffix(".part")
        draft.write_text(json.dumps({"tile": side, **facts}, indent=2))
        draft.replace(file)
    except OSError:
        pass  # a read-only system finds it again each time
