"""Images with their classes, and what is done with them as a whole: subsets, rotations, normalising."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from emboundary.training.crops.data import DataError

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]
Labelled = tuple[Images, Labels]


@dataclass(frozen=True)
class ImageSet:
    """Labelled images for training and for scoring.

    Attributes:
        name: of the data set.
        train_images, test_images: uint8, axes (n, channel, y, x).
        train_labels, test_labels: places in ``classes``, int64, shape (n,).
        classes: their names.
        mean, std: of every channel of the training images, in grey levels.
    """

    name: str
    train_images: Images
    train_labels: Labels
    test_images: Images
    test_labels: Labels
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def channels(self) -> int:
        """Of every image: 1 for grey, 3 for colour."""
        return int(self.train_images.shape[1])

    @property
    def size(self) -> int:
        """Side of every image in pixels; they are square."""
        return int(self.train_images.shape[-1])

    def normalised(self, images: Images) -> NDArray[np.float32]:
        """``(grey level - mean) / std`` with the training images' statistics of each channel; float32."""
        mean, std = (np.asarray(v, dtype=np.float32)[:, None, None] for v in (self.mean, self.std))
        return (images.astype(np.float32) - mean) / std


def image_set(name: str, train: Labelled, test: Labelled, classes: tuple[str, ...]) -> ImageSet:
    """Put a set together, with the statistics of its training images.

    Raises:
        DataError: a channel of the training images is constant.
    """
    grey = train[0].transpose(1, 0, 2, 3).reshape(train[0].shape[1], -1)
    mean, std = (tuple(float(f(channel)) for channel in grey) for f in (np.mean, np.std))
    if not all(std):
        raise DataError(
            f"{name}: channel {std.index(0.0)} of the {len(train[0])} training images is constant; there is nothing to "
            "learn from: take more of them"
        )
    return ImageSet(name, *train, *test, classes, mean, std)


def stratified_order(labels: Labels, seed: tuple[int, ...]) -> NDArray[np.int64]:
    """A seeded order of all images of which every beginning holds the classes as the whole does.

    The k-th of a class of m images, in random order, stands at ``(k + u) / m`` of the way, u uniform in [0, 1) for
    each class; so the first n images of a larger n hold those of a smaller one.
    """
    rng = np.random.default_rng(seed)
    place = np.empty(len(labels))
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels == label)
        place[rng.permutation(of_class)] = (np.arange(len(of_class)) + rng.random()) / len(of_class)
    return np.argsort(place, kind="stable").astype(np.int64)


def rotated(images: Images, seed: tuple[int, ...]) -> Images:
    """Turn each image about its centre by an angle of its own, uniform over the full circle; bicubic, 0 outside."""
    rng = np.random.default_rng(seed)
    angles = rng.uniform(0.0, 360.0, len(images))
    side_y, side_x = images.shape[2:]
    centre = ((side_x - 1) / 2, (side_y - 1) / 2)
    turned = np.empty_like(images)
    for k, angle in enumerate(angles):
        matrix = cv2.getRotationMatrix2D(centre, float(angle), 1.0)
        for channel, image in enumerate(images[k]):
            turned[k, channel] = cv2.warpAffine(image, matrix, (side_x, side_y), flags=cv2.INTER_CUBIC)
    return turned
