"""Real sections for benchmarks of the service, and the maps that must come back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from emboundary.service.engine import Device, OnnxEngine, find_model
from emboundary.service.preparing.intensity import measure
from emboundary.service.run.inference import predict_array

SIDE = 512


def cut(data: Path, count: int, side: int = SIDE) -> NDArray[np.uint8]:
    """Squares (count, side, side) of a TIFF stack, each another one.

    Raises:
        ValueError: a stack that holds fewer.
    """
    stack = tifffile.imread(data)
    _, height, width = stack.shape
    places = [(y, x) for y in range(0, height - side + 1, side) for x in range(0, width - side + 1, side)]
    squares = [section[y : y + side, x : x + side] for section in stack for y, x in places][:count]
    if len(squares) < count:
        raise ValueError(f"{data} holds {len(squares)} squares of {side}; {count} are needed")
    return np.stack(squares)


def prepare(folder: Path, sections: NDArray[np.uint8], model: str, device: Device = "cpu") -> None:
    """Write ``sections.npy`` and ``maps.npy`` for ``load_clients.py``, computed one by one, without any service."""
    engine = OnnxEngine.open(find_model(model), device)
    maps = [predict_array(engine, s[None], measure(s[None]).intensity)[0] for s in sections]
    np.save(folder / "sections.npy", sections)
    np.save(folder / "maps.npy", np.rint(255 * np.stack(maps)).astype(np.uint8))
