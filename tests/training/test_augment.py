from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from emboundary.model.groups import D4, act
from emboundary.training.config import AugmentConfig
from emboundary.training.crops.augment import augmented_crop

OFF = AugmentConfig(symmetry=False)
EVERYTHING = AugmentConfig(
    symmetry=True,
    rotate=True,
    scale=0.2,
    elastic=1.0,
    elastic_spacing=8,
    contrast=0.5,
    brightness=0.5,
    gamma=0.3,
    noise=0.5,
    blur=1.0,
    defects=0.5,
    missing=0.5,
)
SIDE = 16

Image = NDArray[np.float32]


@pytest.fixture(scope="module")
def sections() -> Image:
    return np.random.default_rng(0).standard_normal((3, 24, 28), dtype=np.float32)


def crop(sections: Image, config: AugmentConfig, seed: int, corner: tuple[int, int] = (3, 5)) -> tuple[Image, Image]:
    return augmented_crop(sections, sections[1] > 0, corner, SIDE, config, (seed,))


def test_switched_off_it_cuts_the_crop_out(sections: Image) -> None:
    image, target = crop(sections, OFF, 1)
    np.testing.assert_array_equal(image, sections[:, 3:19, 5:21])
    np.testing.assert_array_equal(target, (sections[1, 3:19, 5:21] > 0).astype(np.float32))


def test_the_target_turns_with_the_image_and_all_eight_elements_occur(sections: Image) -> None:
    seen = set()
    upright = sections[:, 3:19, 5:21]
    for seed in range(100):
        image, target = crop(sections, AugmentConfig(symmetry=True), seed)
        np.testing.assert_array_equal(target, (image[1] > 0).astype(np.float32))
        (element,) = (g for g in D4.elements if np.array_equal(act(g, upright), image))
        seen.add(element)
    assert seen == set(D4.elements)


def test_results_are_contiguous_and_the_sections_stay_as_they_were(sections: Image) -> None:
    before = sections.copy()
    for seed in range(20):
        image, target = crop(sections, EVERYTHING, seed)
        assert (image.shape, target.shape) == ((3, SIDE, SIDE), (SIDE, SIDE))
        for result in (image, target):
            assert result.flags.c_contiguous
            assert result.dtype == np.float32
        assert set(np.unique(target)) <= {0.0, 1.0}
    np.testing.assert_array_equal(sections, before)


def test_a_crop_is_a_function_of_its_seed(sections: Image) -> None:
    first, again, other = (crop(sections, EVERYTHING, seed) for seed in (7, 7, 8))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])


SHADES = {"contrast": 0.0, "brightness": 0.0, "gamma": 0.0, "noise": 0.0, "blur": 0.0, "defects": 0.0}


def test_what_changes_intensities_leaves_the_target_as_it_is(sections: Image) -> None:
    for seed in range(10):
        with_them, without = (crop(sections, c, seed)[1] for c in (EVERYTHING, EVERYTHING.model_copy(update=SHADES)))
        np.testing.assert_array_equal(with_them, without)


@pytest.mark.parametrize("switch", ["contrast", "brightness", "gamma", "noise", "blur", "defects", "missing"])
def test_one_switch_leaves_what_the_others_draw_as_it_is(sections: Image, switch: str) -> None:
    """A crop in which two configurations differ in one shade is elsewhere changed alike: noise shows it."""
    quiet = EVERYTHING.model_copy(update={**SHADES, "missing": 0.0, "noise": 0.5})
    louder = quiet.model_copy(update={switch: 0.0 if switch == "noise" else 0.4})
    for seed in range(5):
        turned, same = crop(sections, quiet, seed), crop(sections, louder, seed)
        np.testing.assert_array_equal(turned[1], same[1])
        if switch in ("contrast", "brightness"):
            # what is left of the image behind an affine change of its intensities is the same noise
            clean, shifted = (crop(sections, c.model_copy(update={"noise": 0.0}), seed)[0] for c in (quiet, louder))
            np.testing.assert_allclose(turned[0] - clean, same[0] - shifted, atol=1e-5)
