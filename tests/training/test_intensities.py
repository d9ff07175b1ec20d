from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from emboundary.training.config import AugmentConfig
from emboundary.training.crops.intensities import change_intensities

Image = NDArray[np.float32]

ONES, ZEROS = np.ones((1, 2, 2), np.float32), np.zeros((1, 64, 64), np.float32)


def values(image: Image, draws: int = 300, **changes: float) -> list[Image]:
    config = AugmentConfig(symmetry=False, **changes)  # type: ignore[arg-type]
    return [change_intensities(image, config, np.random.default_rng(seed)) for seed in range(draws)]


def test_contrast_multiplies_within_its_bounds() -> None:
    gains = [float(v[0, 0, 0]) for v in values(ONES, contrast=0.3)]
    assert np.exp(-0.3) - 1e-6 <= min(gains) < 0.78
    assert 1.28 < max(gains) <= np.exp(0.3) + 1e-6


def test_brightness_shifts_within_its_bounds() -> None:
    shifts = [float(v[0, 0, 0]) for v in values(ZEROS, brightness=0.3)]
    assert -0.3 - 1e-6 <= min(shifts) < -0.27
    assert 0.27 < max(shifts) <= 0.3 + 1e-6


def test_noise_is_gaussian_of_a_deviation_within_its_bounds() -> None:
    noises = values(ZEROS, draws=100, noise=0.3)
    deviations = [float(n.std()) for n in noises]
    assert min(deviations) < 0.03
    assert 0.27 < max(deviations) < 0.32
    assert all(abs(float(n.mean())) < 0.03 for n in noises)


def test_gamma_bends_the_grey_values_and_keeps_their_order_and_their_ends() -> None:
    ramp = np.linspace(-4, 4, 65, dtype=np.float32).reshape(1, 1, 65)
    middles = []
    for bent in values(ramp, gamma=0.4):
        assert (np.diff(bent[0, 0]) > 0).all()
        np.testing.assert_allclose(bent[0, 0, [0, -1]], [-4, 4], atol=1e-5)
        middles.append(float(bent[0, 0, 32]))
    assert min(middles) < -1
    assert max(middles) > 1


def test_blur_takes_the_fine_grain_away_and_keeps_the_mean() -> None:
    grain = np.random.default_rng(0).standard_normal((1, 64, 64), dtype=np.float32)
    blurred = values(grain, draws=100, blur=1.5)
    deviations = [float(b.std()) for b in blurred]
    assert 0.18 < min(deviations) < 0.3, "1 / (2 sqrt(pi) 1.5) = 0.19 at the widest"
    assert max(deviations) > 0.9
    assert all(abs(float(b.mean() - grain.mean())) < 0.03 for b in blurred)


def test_defects_befall_their_share_of_the_crops() -> None:
    grain = np.random.default_rng(0).standard_normal((1, 64, 64), dtype=np.float32)
    changed = [v for v in values(grain, defects=0.25) if not np.array_equal(v, grain)]
    assert 0.18 < len(changed) / 300 < 0.32
    faint = [v for v in changed if v.std() < 0.6 * grain.std()]
    assert 0.3 < len(faint) / len(changed) < 0.7
    stained = next(v for v in changed if v.std() >= 0.9 * grain.std())
    stain = stained - grain
    assert np.abs(np.diff(stain, axis=1)).max() < 0.5, "soft"


def test_missing_sections_are_neighbours_and_blank() -> None:
    sections = np.random.default_rng(0).standard_normal((5, 8, 8), dtype=np.float32) + 3
    blank = np.array([(v == 0).all(axis=(1, 2)) for v in values(sections, missing=0.3)])
    assert not blank[:, 2].any(), "the section that is learned from is never missing"
    assert ((blank.mean(0) > 0.2) & (blank.mean(0) < 0.4))[[0, 1, 3, 4]].all()


def test_neighbouring_sections_change_alike_but_for_their_noise() -> None:
    section = np.random.default_rng(0).standard_normal((8, 8), dtype=np.float32)
    alike = np.stack([section] * 3)
    for v in values(alike, draws=20, contrast=0.3, brightness=0.3, gamma=0.3, blur=1.0):
        np.testing.assert_array_equal(v[0], v[1])
        np.testing.assert_array_equal(v[0], v[2])
    assert all(not np.array_equal(v[0], v[1]) for v in values(alike, draws=20, noise=0.3))


def test_the_image_that_is_given_stays_as_it_was() -> None:
    image = np.random.default_rng(0).standard_normal((3, 8, 8), dtype=np.float32)
    before = image.copy()
    values(image, draws=20, missing=0.5, defects=1.0)
    values(image, draws=20)
    np.testing.assert_array_equal(image, before)
