from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray

from emboundary.model.geometry import Box, Footprint
from emboundary.service.engine import IdentityEngine
from emboundary.service.errors import InputError
from emboundary.service.preparing.intensity import Intensity
from emboundary.service.run.inference import Map, predict_array, predict_box

FOOTPRINT = Footprint((0, 12, 12), (1, 4, 4))
UNIT = Intensity(0.0, 1.0)


def ramp(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Every voxel different, all within [0, 1]."""
    return np.linspace(0, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape)


@pytest.mark.parametrize("tta", [False, True])
@pytest.mark.parametrize("tile", [1, 7, 16, None])
@pytest.mark.parametrize("shape", [(3, 37, 50), (1, 1, 40), (2, 40, 1), (1, 1, 1), (2, 5, 3)])
def test_the_identity_comes_back_from_any_tiling(shape: tuple[int, int, int], tile: int | None, tta: bool) -> None:
    array = ramp(shape)
    found = predict_array(IdentityEngine(FOOTPRINT), array, UNIT, tile=tile, tta=tta)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, array, rtol=0, atol=2e-7)  # two units in the last place


@dataclass(frozen=True)
class WatchedEngine:
    """An identity that notes the shapes it was given."""

    footprint: Footprint = FOOTPRINT
    outputs: tuple[str, ...] = ("boundary",)
    shapes: list[tuple[int, ...]] = field(default_factory=list)

    def run(self, images: Map) -> Map:
        assert images.dtype == np.float32
        assert images.flags.c_contiguous
        self.shapes.append(images.shape)
        return images.copy()


def test_engines_see_aligned_images_and_the_full_halo() -> None:
    engine = WatchedEngine()
    predict_box(engine, ramp((2, 64, 64)), Box((0, 10, 17), (1, 20, 30)), UNIT)
    # y: 8-12 to 20+12; x: 16-12 to 32+12
    assert engine.shapes == [(1, 1, 36, 40)]


def test_sections_share_a_batch_only_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = WatchedEngine()
    monkeypatch.setattr("emboundary.service.run.inference.BATCH_PIXELS", 2 * 40 * 40 + 1)
    array = ramp((5, 16, 16))
    np.testing.assert_array_equal(predict_array(engine, array, UNIT), array)
    assert [shape[0] for shape in engine.shapes] == [2, 2, 1]


def test_values_that_are_not_finite_are_refused_in_memory_too() -> None:
    array = ramp((2, 8, 8))
    array[1, 2, 3] = np.nan
    with pytest.raises(InputError, match=r"\(1, 2, 3\)"):
        predict_array(IdentityEngine(FOOTPRINT), array, UNIT)


def test_an_intensity_that_overflows_is_refused() -> None:
    with pytest.raises(InputError, match=r"normalised by intensity 0\.0,1e-300, voxel values become too large"):
        predict_array(WatchedEngine(), ramp((1, 8, 8)), Intensity(0.0, 1e-300))
