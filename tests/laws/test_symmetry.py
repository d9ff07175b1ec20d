"""Law 2: at equal intensity, predict(g x) = g predict(x) for ``d4`` and all 8 rotations and flips g.

It holds where both sides of a section are multiples of the stride.  Where they are not, padding extends the section
at the bottom and right; a flip moves that extension to the top or left, and with it the phase of the sampling grid.
Then predict(g x) is g of the map whose extension stands on the other side, exactly; and the two maps differ.
Transposition moves no extension from end to end, so it commutes for all sides.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from emboundary.model.groups import D4, act, bits
from emboundary.service.preparing.intensity import Intensity
from emboundary.service.run.inference import predict_array

TOLERANCE = 1e-5
UNIT = Intensity(0.0, 1.0)
ALIGNED, ODD = (48, 72), (45, 67)


def section(shape: tuple[int, int]) -> NDArray[np.float32]:
    """Smooth noise of mean 0 and standard deviation 1: white noise would leave a trained network cold."""
    rng = np.random.default_rng(7)
    image = rng.normal(size=shape)
    for axis in (0, 1):
        image = sum(np.roll(image, shift, axis) for shift in range(-2, 3))
    return ((image - image.mean()) / image.std()).astype(np.float32)


def predict(network: Any, image: NDArray[Any], *, tta: bool = False) -> NDArray[np.float32]:
    return predict_array(network.engine, np.ascontiguousarray(image)[None], UNIT, tile=64, tta=tta)[0]


def violation(network: Any, image: NDArray[np.float32], g: int, *, tta: bool = False) -> float:
    """Largest ``|predict(g x) - g predict(x)|``."""
    turned = predict(network, act(g, image), tta=tta)
    return float(np.abs(turned - act(g, predict(network, image, tta=tta))).max())


@pytest.mark.parametrize("g", D4.elements)
def test_d4_commutes_where_sides_are_multiples_of_the_stride(d4: Any, g: int) -> None:
    assert violation(d4, section(ALIGNED), g) <= TOLERANCE


def test_models_keep_the_symmetry_that_they_state(bundled: Any) -> None:
    worst = max(violation(bundled, section(ALIGNED), g) for g in D4.elements)
    stated = bundled.entry.description.symmetry
    assert (worst <= TOLERANCE) == (stated.group == "D4")
    assert (stated.error <= TOLERANCE) == (stated.group == "D4")


@pytest.mark.parametrize("g", D4.elements)
def test_turned_augmentation_makes_every_model_commute(bundled: Any, g: int) -> None:
    assert violation(bundled, section((24, 32)), g, tta=True) <= TOLERANCE


@pytest.mark.parametrize("g", D4.elements)
def test_d4_on_other_sides_commutes_up_to_the_side_of_the_extension(d4: Any, g: int) -> None:
    image = section(ODD)
    y, x = image.shape
    transpose, flip_y, flip_x = bits(g)
    # Flips come after the transposition, so an image's axis is flipped under the other's name where both happen.
    flipped = (flip_x, flip_y) if transpose else (flip_y, flip_x)
    padded = d4.padded(image, flipped)
    top, left = (d4.halo + (-n % d4.stride) * f for n, f in zip(image.shape, flipped, strict=True))
    moved = d4.f(padded)[top : top + y, left : left + x]
    assert np.abs(predict(d4, act(g, image)) - act(g, moved)).max() <= TOLERANCE


@pytest.mark.parametrize("g", D4.elements)
def test_d4_on_other_sides_commutes_with_identity_and_transposition_alone(
    d4: Any, g: int, record_property: Any
) -> None:
    measured = violation(d4, section(ODD), g)
    record_property("violation", measured)
    _, flip_y, flip_x = bits(g)
    assert (measured <= TOLERANCE) == (not flip_y and not flip_x)
