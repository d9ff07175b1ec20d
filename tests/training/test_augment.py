import numpy as np
import pytest
from numpy.typing import NDArray

from emboundary.model.groups import D4, act
from emboundary.training.augment import augment
from emboundary.training.config import AugmentConfig

OFF = AugmentConfig(symmetry=False)
TURNS = AugmentConfig(symmetry=True)

Image = NDArray[np.float32]


@pytest.fixture(scope="module")
def image() -> Image:
    return np.random.default_rng(0).standard_normal((16, 16), dtype=np.float32)


def test_switched_off_it_changes_nothing(image: Image) -> None:
    target = (image > 0).astype(np.float32)
    changed, kept = augment(image, target, OFF, np.random.default_rng(1))
    np.testing.assert_array_equal(changed, image)
    np.testing.assert_array_equal(kept, target)


def test_the_target_turns_with_the_image_and_all_eight_elements_occur(image: Image) -> None:
    rng = np.random.default_rng(1)
    seen = set()
    for _ in range(100):
        changed, target = augment(image, image.copy(), TURNS, rng)
        np.testing.assert_array_equal(changed, target)
        (element,) = (g for g in D4.elements if np.array_equal(act(g, image), changed))
        seen.add(element)
    assert seen == set(D4.elements)


def test_results_are_contiguous_and_the_crop_stays_as_it_was(image: Image) -> None:
    before, target = image.copy(), np.zeros_like(image)
    everything = AugmentConfig(symmetry=True, contrast=0.5, brightness=0.5, noise=0.5)
    rng = np.random.default_rng(2)
    for _ in range(20):
        for result in augment(image, target, everything, rng):
            assert result.flags.c_contiguous
            assert result.dtype == np.float32
    np.testing.assert_array_equal(image, before)
    assert not target.any()


def values(image: Image, config: AugmentConfig, draws: int = 300) -> list[Image]:
    rng = np.random.default_rng(3)
    return [augment(image, image, config, rng)[0] for _ in range(draws)]


def test_contrast_multiplies_within_its_bounds() -> None:
    gains = [float(v[0, 0]) for v in values(np.ones((2, 2), np.float32), AugmentConfig(symmetry=False, contrast=0.3))]
    assert np.exp(-0.3) - 1e-6 <= min(gains) < 0.78
    assert 1.28 < max(gains) <= np.exp(0.3) + 1e-6


def test_brightness_shifts_within_its_bounds() -> None:
    shifts = [
        float(v[0, 0]) for v in values(np.zeros((2, 2), np.float32), AugmentConfig(symmetry=False, brightness=0.3))
    ]
    assert -0.3 - 1e-6 <= min(shifts) < -0.27
    assert 0.27 < max(shifts) <= 0.3 + 1e-6


def test_noise_is_gaussian_of_a_deviation_within_its_bounds() -> None:
    noises = values(np.zeros((64, 64), np.float32), AugmentConfig(symmetry=False, noise=0.3), draws=100)
    deviations = [float(n.std()) for n in noises]
    assert min(deviations) < 0.03
    assert 0.27 < max(deviations) < 0.32
    assert all(abs(float(n.mean())) < 0.03 for n in noises)


def test_the_target_keeps_its_values(image: Image) -> None:
    target = (image > 0).astype(np.float32)
    changing = AugmentConfig(symmetry=False, contrast=0.5, brightness=0.5, noise=0.5)
    _, kept = augment(image, target, changing, np.random.default_rng(4))
    np.testing.assert_array_equal(kept, target)


@pytest.mark.parametrize("switch", ["symmetry", "contrast", "brightness"])
def test_one_switch_leaves_the_others_draws_as_they_are(image: Image, switch: str) -> None:
    everything = AugmentConfig(symmetry=True, contrast=0.5, brightness=0.5, noise=0.5)
    without = everything.model_copy(update={switch: False if switch == "symmetry" else 0.0})
    with_it, without_it = np.random.default_rng(5), np.random.default_rng(5)
    augment(image, image, everything, with_it)
    augment(image, image, without, without_it)
    assert with_it.random() == without_it.random()
