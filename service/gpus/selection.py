"""``CUDA_VISIBLE_DEVICES``: which of the machine's GPUs a process sees, and in which order."""

from __future__ import annotations

import os
from collections.abc import Sequence

VARIABLE = "CUDA_VISIBLE_DEVICES"


def selected(uuids: Sequence[str], value: str | None = None) -> list[str]:
    """UUIDs of the GPUs that CUDA shows, in CUDA's order.

    As CUDA reads it: numbers or beginnings of UUIDs between commas; the first one that names no GPU, or several, ends
    the list; a GPU that is named twice leaves none.  A slice of a GPU is named by its own UUID, ``MIG-...``.

    On a machine with unlike GPUs CUDA counts the fastest first and the driver by their places on the bus, unless
    ``CUDA_DEVICE_ORDER=PCI_BUS_ID`` is set.

    Args:
        uuids: of all GPUs, in the driver's order.
        value: of the variable; None: as it is set.
    """
    value = os.environ.get(VARIABLE) if value is None else value
    if value is None:
        return list(uuids)
    found: list[str] = []
    for word in (part.strip() for part in value.split(",")):
        uuid = _named(word, uuids)
        if uuid is None:
            break
        if uuid in found:
            return []
        found.append(uuid)
    return found


def _named(word: str, uuids: Sequence[str]) -> str | None:
    if word.isdecimal():
        return uuids[int(word)] if int(word) < len(uuids) else None
    if word.startswith("MIG-"):
        return word
    fitting = [uuid for uuid in uuids if word and uuid.startswith(word)]
    return fitting[0] if len(fitting) == 1 else None
