"""What keeps models from running on a GPU, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# The chain that a model on a GPU hangs on, from the Python package to the memory on the card.
Link = Literal["runtime", "driver", "gpu", "cuda", "cudnn", "tensorrt", "memory", "other"]


@dataclass(frozen=True)
class Missing:
    """The first link of the chain that does not hold.

    Attributes:
        link: which one.
        what: what is missing, fit to follow "device is cuda, but".
        remedy: what to install or do, as an instruction.
    """

    link: Link
    what: str
    remedy: str
