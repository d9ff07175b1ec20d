from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from emboundary.training.images.config import ImageDataConfig
from emboundary.training.images.sampling import ImageSampler
from emboundary.training.images.sets import ImageSet, image_set

COUNT = 10


@pytest.fixture
def images() -> ImageSet:
    """Ten images, each told from the others by every pixel but a bright one that has a place of its own."""
    pixels = np.tile(np.arange(1, COUNT + 1, dtype=np.uint8)[:, None, None, None], (1, 1, 8, 8))
    pixels[:, :, 3, 2] = 200
    labelled = pixels, np.arange(COUNT)
    return image_set("made up", labelled, labelled, tuple("abcdefghij"))


def _grey(images: ImageSet, normalised: np.ndarray) -> np.ndarray:
    return np.rint(normalised[:, 0] * images.std[0] + images.mean[0]).astype(int)


def test_every_image_comes_once_per_epoch_also_where_batches_straddle_two(images: ImageSet) -> None:
    sampler = ImageSampler(images, 4, seed=1)
    drawn = np.concatenate([sampler.batch(step).labels for step in range(5)])
    assert sorted(drawn[:COUNT]) == sorted(drawn[COUNT:]) == list(range(COUNT))
    assert list(drawn[:COUNT]) != list(drawn[COUNT:])


def test_a_batch_larger_than_the_set_spans_epochs(images: ImageSet) -> None:
    labels = ImageSampler(images, 25, seed=1).batch(1).labels
    assert len(labels) == 25
    assert sorted(labels[5:15]) == sorted(labels[15:]) == list(range(COUNT))


def test_images_come_with_their_labels(images: ImageSet) -> None:
    batch = ImageSampler(images, 6, seed=2).batch(3)
    assert (batch.images.dtype, batch.images.shape, batch.labels.dtype) == (np.float32, (6, 1, 8, 8), np.int64)
    np.testing.assert_array_equal(_grey(images, batch.images)[:, 0, 0], batch.labels + 1)


def test_a_batch_is_a_function_of_seed_and_step(images: ImageSet) -> None:
    sampler = ImageSampler(images, 6, seed=2, shift=2, mirror=True)
    for step in (0, 7):
        again = ImageSampler(images, 6, seed=2, shift=2, mirror=True).batch(step)
        np.testing.assert_array_equal(sampler.batch(step).images, again.images)
        np.testing.assert_array_equal(sampler.batch(step).labels, again.labels)
    assert (replace(sampler, seed=3).batch(0).labels != sampler.batch(0).labels).any()


def test_shifts_move_by_up_to_so_many_pixels_and_bring_zeros_in(images: ImageSet) -> None:
    sampler = ImageSampler(images, COUNT, seed=0, shift=2)
    moves = set()
    for step in range(20):
        for image in _grey(images, sampler.batch(step).images):
            y, x = np.argwhere(image == 200)[0] - (3, 2)
            moves.add((int(y), int(x)))
            zeros = np.zeros((8, 8), dtype=bool)
            zeros[: max(y, 0)], zeros[8 + min(y, 0) :] = True, True
            zeros[:, : max(x, 0)], zeros[:, 8 + min(x, 0) :] = True, True
            np.testing.assert_array_equal(image == 0, zeros)
    assert moves == {(y, x) for y in range(-2, 3) for x in range(-2, 3)}


def test_mirrors_change_about_half_of_the_images_and_nothing_else(images: ImageSet) -> None:
    places = []
    for step in range(20):
        batch = ImageSampler(images, COUNT, seed=0, mirror=True).batch(step)
        places += [int(np.argwhere(image == 200)[0, 1]) for image in _grey(images, batch.images)]
        np.testing.assert_array_equal(batch.labels, ImageSampler(images, COUNT, seed=0).batch(step).labels)
    assert set(places) == {2, 5}
    assert 0.4 < places.count(5) / len(places) < 0.6


@pytest.mark.parametrize("option", ["rotate_train", "rotate_test"])
def test_turning_what_is_turned_is_refused(option: str) -> None:
    with pytest.raises(ValidationError, match="rotated-mnist is turned already: leave rotate_train and rotate_test"):
        ImageDataConfig.model_validate({"dataset": "rotated-mnist", option: True})
