"""Law 2 for models that see each section amid its neighbours: segmenters with random weights, as they are published.

All sections of a volume turn together, so the channels stay where they are and the symmetry is as exact as without.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from emboundary.model.export import export_model
from emboundary.model.groups import D4, act
from emboundary.model.inception import Segmenter, SegmenterSpec
from emboundary.model.repository import load_model
from emboundary.service.engine import OnnxEngine
from emboundary.service.preparing.intensity import Intensity
from emboundary.service.run.inference import predict_array

TOLERANCE = 1e-5
INTENSITY = Intensity(127.5, 73.9)
SPEC = SegmenterSpec(stem=8, a=8, b=8, c=8, blocks=(1, 1, 1), decoder=8, head=8, mix=8, last="max-mean", context=1)
# Sides that are multiples of the stride: see test_symmetry.
ARRAY = np.random.default_rng(5).integers(0, 256, (3, 40, 56), dtype=np.uint8)


def publish(symmetry: Literal["d4", "paper"], folder: Path) -> OnnxEngine:
    torch.manual_seed(0)
    export_model(
        Segmenter(replace(SPEC, symmetry=symmetry)).eval(),
        folder / symmetry / "1",
        name=symmetry,
        version="1",
        summary="random weights",
        voxel_sizes_nm=[(50.0, 4.6, 4.6)],
        training=[],
        validation=[],
        weights_licence="none",
    )
    return OnnxEngine.open(load_model(folder / symmetry / "1"), "cpu")


@pytest.fixture(scope="module")
def d4(tmp_path_factory: pytest.TempPathFactory) -> OnnxEngine:
    return publish("d4", tmp_path_factory.mktemp("d4"))


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> OnnxEngine:
    return publish("paper", tmp_path_factory.mktemp("paper"))


def predict(engine: OnnxEngine, array: NDArray[Any], *, tta: bool = False) -> NDArray[np.float32]:
    return predict_array(engine, np.ascontiguousarray(array), INTENSITY, tile=24, tta=tta)


def violation(engine: OnnxEngine, g: int, *, tta: bool = False) -> float:
    """Largest ``|predict(g x) - g predict(x)|``."""
    difference = predict(engine, act(g, ARRAY), tta=tta) - act(g, predict(engine, ARRAY, tta=tta))
    return float(np.abs(difference).max())


@pytest.mark.parametrize("g", D4.elements)
def test_the_map_of_a_turned_volume_is_the_turned_map(d4: OnnxEngine, g: int) -> None:
    assert violation(d4, g) <= TOLERANCE
    assert d4.description.symmetry.error <= TOLERANCE


def test_that_says_something(d4: OnnxEngine, paper: OnnxEngine) -> None:
    """The map is far from constant and from that of single sections, and other networks do not pass."""
    found = predict(d4, ARRAY)
    assert found.std() > 100 * TOLERANCE
    assert np.abs(found[1] - predict(d4, ARRAY[1:2])[0]).max() > 100 * TOLERANCE
    assert max(violation(paper, g) for g in D4.elements) > 100 * TOLERANCE
    assert paper.description.symmetry.error > 100 * TOLERANCE


def test_the_mean_over_turned_volumes_is_symmetric_whatever_the_network(paper: OnnxEngine) -> None:
    assert max(violation(paper, g, tta=True) for g in D4.elements) <= TOLERANCE
