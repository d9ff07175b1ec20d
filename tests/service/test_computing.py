from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from emboundary.model.geometry import Box, Footprint
from emboundary.model.repository import load_model
from emboundary.service.engine import IdentityEngine, OnnxEngine
from emboundary.service.preparing.intensity import Intensity
from emboundary.service.run.computing import Computation, Masked
from emboundary.service.run.inference import predict_array
from emboundary.service.run.predictor import LocalComputation

INTENSITY = Intensity(120.0, 40.0)
SHAPE = (3, 61, 70)


@pytest.fixture(scope="module")
def engine(repository: Path) -> OnnxEngine:
    return OnnxEngine.open(load_model("d4", repository), "cpu")


def sparse() -> NDArray[np.uint8]:
    """Noise in one corner, elsewhere two constants."""
    array = np.full(SHAPE, 7, np.uint8)
    array[:, 30:, :] = 200
    array[1, :20, :20] = np.random.default_rng(0).integers(0, 256, (20, 20))
    return array


def whole(computation: Computation, tile: tuple[int, int, int]) -> tuple[NDArray[np.float32], int]:
    """The map of the whole volume, and how many tiles were skipped."""
    found = np.full(SHAPE, np.nan, np.float32)
    skipped = 0
    for z in range(0, SHAPE[0], tile[0]):
        for y in range(0, SHAPE[1], tile[1]):
            for x in range(0, SHAPE[2], tile[2]):
                box = Box((z, y, x), (z + tile[0], y + tile[1], x + tile[2])).intersect(Box.of_shape(SHAPE))
                loaded = computation.load(box)
                skipped += computation.skips(loaded)
                for piece, probability in computation.run(loaded):
                    assert box.contains(piece)
                    found[piece.slices] = probability
    return found, skipped


@pytest.mark.parametrize("tta", [False, True])
@pytest.mark.parametrize("tile", [(1, 8, 8), (1, 7, 5), (2, 13, 30)])
def test_constant_tiles_get_the_networks_own_answer(engine: OnnxEngine, tile: tuple[int, int, int], tta: bool) -> None:
    array = sparse()
    computation = LocalComputation(engine, array, INTENSITY, tta=tta)
    found, skipped = whole(computation, tile)
    np.testing.assert_allclose(found, predict_array(engine, array, INTENSITY, tta=tta), rtol=0, atol=1e-5)
    assert skipped > 0


def test_the_answer_to_a_constant_depends_on_the_stride_phase(engine: OnnxEngine) -> None:
    array = np.full(SHAPE, 7, np.uint8)
    found, skipped = whole(LocalComputation(engine, array, INTENSITY), SHAPE)
    assert skipped == 1
    assert len(np.unique(found)) > 1  # else the test above would pass with any one value
    np.testing.assert_array_equal(found[:, 4:, 4:], found[:, :-4, :-4])


def test_a_tile_is_skipped_only_if_its_halo_is_constant_too() -> None:
    engine = IdentityEngine(Footprint((0, 8, 8), (1, 4, 4)))
    for distance, constant in ((8, False), (9, True)):
        array = np.zeros(SHAPE, np.uint8)
        array[0, 20, 20 + distance - 1] = 1
        computation = LocalComputation(engine, array, Intensity(0, 1))
        assert computation.skips(computation.load(Box((0, 16, 12), (1, 20, 20)))) is constant


def test_fill_stands_in_for_constant_tiles_only(engine: OnnxEngine) -> None:
    array = sparse()
    expected = predict_array(engine, array, INTENSITY)
    found, skipped = whole(LocalComputation(engine, array, INTENSITY, fill=0.25), (1, 8, 8))
    filled = found == 0.25
    assert skipped == filled.sum() // 64 + (filled.sum() % 64 > 0) or skipped > 0
    np.testing.assert_allclose(found[~filled], expected[~filled], rtol=0, atol=1e-5)
    assert not filled[1, :20, :20].any()
    assert filled[2].any()


@pytest.mark.parametrize("tile", [(1, 8, 8), (2, 30, 70)])
def test_outside_a_mask_stands_the_fill_whatever_the_tile(engine: OnnxEngine, tile: tuple[int, int, int]) -> None:
    array = np.random.default_rng(1).integers(0, 256, SHAPE).astype(np.uint8)
    mask = np.zeros(SHAPE, np.uint16)
    mask[0, 5:40, 11:50] = 300  # a label that is 44 in 8 bits
    computation = Masked(LocalComputation(engine, array, INTENSITY), mask, 0.5)
    found, skipped = whole(computation, tile)
    expected = np.where(mask != 0, predict_array(engine, array, INTENSITY), np.float32(0.5))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert skipped > 0


def test_nothing_is_read_outside_the_mask(engine: OnnxEngine) -> None:
    class Unreadable:
        shape = SHAPE

        def __getitem__(self, key: Any) -> Any:
            raise AssertionError

    computation = Masked(LocalComputation(engine, Unreadable(), INTENSITY), np.zeros(SHAPE, np.uint8))
    found, _ = whole(computation, (1, 61, 70))
    assert (found == 0).all()
