from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from emboundary.model.geometry import Box
from emboundary.model.repository import load_model
from emboundary.service.engine import OnnxEngine
from emboundary.service.errors import UsageError
from emboundary.service.preparing.intensity import Intensity
from emboundary.service.preparing.rescaling import Rescaled
from emboundary.service.run.computing import RescaledComputation
from emboundary.service.run.inference import predict_array
from emboundary.service.run.predictor import LocalComputation

INTENSITY = Intensity(127.5, 73.9)
FACTOR = st.sampled_from([1 / 16, 0.3, 0.5, 4.6 / 6, 1.0, 1.3, 2.0, 6 / 4.6, 3.7])


def noise(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, dtype=np.uint8)


def everything(volume: Any) -> Any:
    return volume[tuple(slice(0, n) for n in volume.shape)]


@pytest.mark.parametrize("factors", [(0.5, 0.5), (0.77, 1.3), (1.0, 0.4), (3.1, 16.0), (1 / 16, 1.01)])
def test_whole_sections_are_what_pillow_makes_of_them(factors: tuple[float, float]) -> None:
    array = noise(2, 67, 91)
    rescaled = Rescaled(array, factors)
    y, x = rescaled.shape[1:]
    assert (y, x) == (round(67 * factors[0]), round(91 * factors[1]))
    expected = [
        np.asarray(Image.fromarray(section.astype(np.float32)).resize((x, y), Image.Resampling.BICUBIC))
        for section in array
    ]
    np.testing.assert_allclose(everything(rescaled), expected, atol=1e-3, rtol=0)


@st.composite
def boxes(draw: st.DrawFn, shape: tuple[int, ...]) -> Box:
    ends = [sorted(draw(st.lists(st.integers(0, n), min_size=2, max_size=2, unique=True))) for n in shape]
    (z0, z1), (y0, y1), (x0, x1) = ends
    return Box((z0, y0, x0), (z1, y1, x1))


SHAPES = st.tuples(st.integers(1, 2), st.integers(1, 70), st.integers(1, 70))


@settings(deadline=None)
@given(data=st.data(), shape=SHAPES, fy=FACTOR, fx=FACTOR)
def test_a_box_is_the_same_as_in_the_whole(
    data: st.DataObject, shape: tuple[int, int, int], fy: float, fx: float
) -> None:
    rescaled = Rescaled(noise(*shape), (fy, fx))
    box = data.draw(boxes(rescaled.shape))
    np.testing.assert_array_equal(rescaled[box.slices], everything(rescaled)[box.slices])


@settings(deadline=None)
@given(data=st.data(), shape=SHAPES, fy=FACTOR, fx=FACTOR)
def test_a_part_of_the_map_comes_back_as_in_the_whole(
    data: st.DataObject, shape: tuple[int, int, int], fy: float, fx: float
) -> None:
    rescaled = Rescaled(noise(*shape), (fy, fx))
    probability = np.random.default_rng(1).random(rescaled.shape, np.float32)
    whole = rescaled.restore(probability, Box.of_shape(rescaled.shape), Box.of_shape(shape))
    assert whole.shape == shape
    assert whole.min() >= 0
    assert whole.max() <= 1
    wanted = data.draw(boxes(shape))
    box = rescaled.needed(wanted)
    np.testing.assert_array_equal(rescaled.restore(probability[box.slices], box, wanted), whole[wanted.slices])


@pytest.fixture(scope="module")
def engine(repository: Path) -> OnnxEngine:
    return OnnxEngine.open(load_model("d4", repository), "cpu")


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), shape=SHAPES, fy=FACTOR, fx=FACTOR)
def test_law_1_holds_on_another_grid(
    engine: OnnxEngine, data: st.DataObject, shape: tuple[int, int, int], fy: float, fx: float
) -> None:
    array = noise(*shape)
    rescaled = Rescaled(array, (fy, fx))
    probability = predict_array(engine, everything(rescaled), INTENSITY)
    expected = rescaled.restore(probability, Box.of_shape(rescaled.shape), Box.of_shape(shape))
    computation = RescaledComputation(LocalComputation(engine, rescaled, INTENSITY), rescaled)
    wanted = data.draw(boxes(shape))
    found = np.full(shape, np.nan, np.float32)
    for box, piece in computation.run(computation.load(wanted)):
        found[box.slices] = piece
    np.testing.assert_allclose(found[wanted.slices], expected[wanted.slices], atol=1e-5, rtol=0)


def test_far_from_the_origin_nothing_is_lost() -> None:
    class Far:
        shape = (1, 1 << 50, 1 << 50)

        def __getitem__(self, key: tuple[slice, slice, slice]) -> NDArray[np.float32]:
            y, x = (np.arange(part.start, part.stop) % 97 for part in key[1:])
            return (y[:, None] + x[None, :]).astype(np.float32)[None]

    rescaled = Rescaled(Far(), (0.5, 0.5))
    at = (1 << 49) - 1000
    near = at % 97 + 97  # the same phase of the pattern
    found = rescaled[0:1, at : at + 20, 0:20]
    np.testing.assert_array_equal(found, rescaled[0:1, near : near + 20, 0:20])
    assert np.ptp(found) > 0


def test_a_ramp_keeps_its_place() -> None:
    array = np.broadcast_to(np.arange(60, dtype=np.float32), (1, 40, 60))
    found = everything(Rescaled(array, (1.0, 0.5)))[0, 0]
    np.testing.assert_allclose(found[3:-3], 2 * np.arange(3, 27) + 0.5, atol=1e-4)


def test_a_map_there_and_back_keeps_its_place() -> None:
    y, x = np.mgrid[:80, :90].astype(np.float32)
    array = (0.5 + 0.4 * np.sin(y / 9) * np.cos(x / 11))[None]
    for factors in [(0.5, 0.7), (1.7, 2.0)]:
        rescaled = Rescaled(array, factors)
        back = rescaled.restore(everything(rescaled), Box.of_shape(rescaled.shape), Box.of_shape((1, 80, 90)))
        np.testing.assert_allclose(back[:, 8:-8, 8:-8], array[:, 8:-8, 8:-8], atol=5e-3)


def test_restoring_from_too_little_is_refused() -> None:
    rescaled = Rescaled(noise(1, 40, 40), (0.5, 0.5))
    with pytest.raises(ValueError, match=r"too small to restore 0:1,0:40,0:40; it must hold 0:1,0:20,0:20"):
        rescaled.restore(np.zeros((1, 5, 5)), Box((0, 0, 0), (1, 5, 5)), Box.of_shape((1, 40, 40)))


@pytest.mark.parametrize("factors", [(17.0, 1.0), (1.0, 0.06), (float("nan"), 1.0), (1.0, float("inf"))])
def test_absurd_factors_are_refused(factors: tuple[float, float]) -> None:
    with pytest.raises(UsageError, match=r"rescaling along [yx] is by .*; it must be between 1/16 and 16: give"):
        Rescaled(noise(1, 4, 4), factors)
