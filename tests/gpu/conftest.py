"""These tests need a GPU that works; elsewhere each is skipped, and the reason says what is missing.

On a GPU host: ``pytest tests/gpu``, with ``emboundary[gpu]`` and what the tests need beside it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from emboundary.service.demo.contest import SAMPLE
from emboundary.service.engine import OnnxEngine, find_model
from emboundary.service.engine.gpu import NoGpuError


@pytest.fixture(scope="session")
def gpu() -> OnnxEngine:
    """The default model on the GPU, in full precision."""
    try:
        return OnnxEngine.open(find_model(), "cuda")
    except NoGpuError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def half(gpu: OnnxEngine) -> OnnxEngine:  # noqa: ARG001  # skips where there is no GPU
    """The default model on the GPU, in float16."""
    return OnnxEngine.open(find_model(), "cuda", "float16")


@pytest.fixture(scope="session")
def cpu() -> OnnxEngine:
    """The default model on the CPU, in full precision: what the others are compared with."""
    return OnnxEngine.open(find_model(), "cpu")


@pytest.fixture(scope="session")
def stack() -> NDArray[np.uint8]:
    """Two real sections (z, y, x)."""
    sections: Any = tifffile.imread(SAMPLE / "raw.ome.tif")[:2, :256, :256]
    return np.ascontiguousarray(sections)
