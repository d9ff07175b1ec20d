import numpy as np
import pytest

from emboundary.training.crops.data import DataError
from emboundary.training.images.sets import Labelled, image_set, rotated, stratified_order


def _part(count: int, channels: int = 1) -> Labelled:
    rng = np.random.default_rng(3)
    return rng.integers(256, size=(count, channels, 6, 6)).astype(np.uint8), np.arange(count) % 2


def test_normalised_training_images_have_mean_0_and_variance_1_in_every_channel() -> None:
    images = image_set("made up", _part(20, 3), _part(4, 3), ("a", "b"))
    normalised = images.normalised(images.train_images)
    assert normalised.dtype == np.float32
    np.testing.assert_allclose(normalised.mean(axis=(0, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(normalised.std(axis=(0, 2, 3)), 1, atol=1e-5)


def test_test_images_are_normalised_by_the_training_images() -> None:
    images = image_set("made up", _part(20), _part(4), ("a", "b"))
    wanted = (images.test_images - images.mean[0]) / images.std[0]
    np.testing.assert_allclose(images.normalised(images.test_images), wanted, atol=1e-5)


def test_a_constant_channel_is_refused() -> None:
    pixels, labels = _part(4, 2)
    pixels[:, 1] = 7
    with pytest.raises(DataError, match=r"^made up: channel 1 of the 4 training images is constant; there is nothing"):
        image_set("made up", (pixels, labels), (pixels, labels), ("a", "b"))


def test_every_beginning_of_a_stratified_order_holds_the_classes_as_the_whole_does() -> None:
    labels = np.random.default_rng(0).choice(4, size=1000, p=[0.4, 0.3, 0.2, 0.1])
    order = stratified_order(labels, (0,))
    assert sorted(order) == list(range(1000))
    for first in (10, 100, 500):
        counts = np.bincount(labels[order[:first]], minlength=4)
        assert np.abs(counts - first * np.bincount(labels) / 1000).max() <= 1


def test_a_stratified_order_is_of_its_seed() -> None:
    labels = np.arange(100) % 5
    assert (stratified_order(labels, (1, 2)) == stratified_order(labels, (1, 2))).all()
    assert (stratified_order(labels, (1, 2)) != stratified_order(labels, (1, 3))).any()


def test_rotated_images_keep_what_is_round_and_turn_the_rest() -> None:
    y, x = np.indices((28, 28)) - 13.5
    blob = (255 * np.exp(-(y**2 + x**2) / 40)).astype(np.uint8)
    bar = np.where((np.abs(y) < 3) & (np.abs(x) < 10), 255, 0).astype(np.uint8)
    turned = rotated(np.stack([blob, bar])[:, None].repeat(20, axis=0), (0,))[:, 0].astype(int)
    assert np.abs(turned[:20] - blob).max() <= 4
    assert sum(np.abs(image - bar).max() > 100 for image in turned[20:]) > 15
    np.testing.assert_allclose(turned[20:].sum(axis=(1, 2)), bar.sum(dtype=int), rtol=0.03)


def test_angles_are_spread_over_the_full_circle_and_depend_on_the_seed_alone() -> None:
    mark = np.zeros((400, 1, 21, 21), dtype=np.uint8)
    mark[:, :, 9:12, 17:20] = 255
    turned = rotated(mark, (5,))
    np.testing.assert_array_equal(turned, rotated(mark, (5,)))
    y, x = np.indices((21, 21)) - 10
    weights = turned[:, 0].astype(float)
    angles = np.arctan2((weights * y).sum((1, 2)), (weights * x).sum((1, 2)))
    assert np.bincount(((angles + np.pi) / (np.pi / 4)).astype(int) % 8, minlength=8).min() > 30
