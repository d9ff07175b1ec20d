from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from emboundary.training.config import AugmentConfig
from emboundary.training.crops.warping import draw_warp

SIDE, CORNER = 32, (40, 60)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def smooth(seed: int = 0) -> NDArray[np.float32]:
    noise = np.random.default_rng(seed).standard_normal((120, 140))
    return (ndimage.gaussian_filter(noise, 3.0) * 10).astype(np.float32)


def test_nothing_asked_for_is_no_warp() -> None:
    assert draw_warp(CORNER, SIDE, AugmentConfig(symmetry=True, noise=1.0), rng()) is None


def test_a_rotation_keeps_distances_and_the_centre() -> None:
    angles = []
    for seed in range(200):
        warp = draw_warp(CORNER, SIDE, AugmentConfig(symmetry=False, rotate=True), rng(seed))
        assert warp is not None
        step = np.array([warp.y[0, 1] - warp.y[0, 0], warp.x[0, 1] - warp.x[0, 0]])
        assert np.hypot(*step) == pytest.approx(1, abs=1e-4)
        assert [warp.y.mean(), warp.x.mean()] == pytest.approx([40 + 15.5, 60 + 15.5], abs=1e-3)
        angles.append(math.atan2(-step[0], step[1]))
    assert np.histogram(angles, bins=8, range=(-np.pi, np.pi))[0].min() >= 10, "every direction occurs"


def test_the_scale_is_a_magnification_within_its_bounds() -> None:
    steps = []
    for seed in range(200):
        warp = draw_warp(CORNER, SIDE, AugmentConfig(symmetry=False, scale=0.3), rng(seed))
        assert warp is not None
        steps.append(float(warp.x[0, 1] - warp.x[0, 0]))
    assert math.exp(-0.3) - 1e-4 <= min(steps) < 0.77
    assert 1.3 < max(steps) <= math.exp(0.3) + 1e-4


def test_an_elastic_displacement_is_smooth_and_of_the_size_asked_for() -> None:
    config = AugmentConfig(symmetry=False, elastic=3.0, elastic_spacing=8)
    moved = []
    for seed in range(50):
        warp = draw_warp(CORNER, SIDE, config, rng(seed))
        assert warp is not None
        moved.append(warp.y - (40 + np.arange(SIDE))[:, None])
        assert np.abs(np.diff(moved[-1], axis=1)).max() < 6, "smooth: independent pixels would be 12 apart"
    assert 1.5 < np.std(moved) < 4


def test_the_image_is_what_an_independent_interpolation_gives() -> None:
    section = smooth()
    warp = draw_warp(CORNER, SIDE, AugmentConfig(symmetry=False, rotate=True, scale=0.2, elastic=1.0), rng(3))
    assert warp is not None
    expected = ndimage.map_coordinates(section, [warp.y, warp.x], order=3, mode="mirror")
    np.testing.assert_allclose(warp.image(section), expected, atol=0.1)


def test_what_lies_outside_the_section_is_its_reflection() -> None:
    section = smooth()
    warp = draw_warp((0, 0), SIDE, AugmentConfig(symmetry=False, rotate=True, scale=0.3), rng(4))
    assert warp is not None
    assert warp.y.min() < -1 or warp.x.min() < -1, "the crop reaches over the border"
    expected = ndimage.map_coordinates(section, [warp.y, warp.x], order=3, mode="mirror")
    np.testing.assert_allclose(warp.image(section), expected, atol=0.1)
    far = draw_warp((120 - SIDE, 140 - SIDE), SIDE, AugmentConfig(symmetry=False, rotate=True, scale=0.3), rng(1))
    assert far is not None
    expected = ndimage.map_coordinates(section, [far.y, far.x], order=3, mode="mirror")
    np.testing.assert_allclose(far.image(section), expected, atol=0.1)


def test_image_and_target_go_the_same_way() -> None:
    section = smooth()
    for seed in range(10):
        config = AugmentConfig(symmetry=False, rotate=True, scale=0.2, elastic=2.0)
        warp = draw_warp(CORNER, SIDE, config, rng(seed))
        assert warp is not None
        disagree = warp.target(section > 0) != (warp.image(section) > 0)
        assert disagree.mean() < 0.05, "but for pixels that the border goes through"


def test_a_target_has_two_values() -> None:
    warp = draw_warp(CORNER, SIDE, AugmentConfig(symmetry=False, rotate=True), rng())
    assert warp is not None
    target = warp.target(smooth() > 0)
    assert target.dtype == np.float32
    assert set(np.unique(target)) == {0.0, 1.0}
