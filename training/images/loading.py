"""From a configuration to the images themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from emboundary.training.crops.data import DataError
from emboundary.training.images import cifar10, mnist
from emboundary.training.images.config import ImageDataConfig
from emboundary.training.images.sets import ImageSet, Labelled, image_set, rotated, stratified_order

# Cohen and Welling 2016, sections 8.1 and 8.2: the paper's rotated digits, and what is kept for validation.
ROTATED_TRAIN, ROTATED_TEST = 12_000, 50_000
VALIDATION = {"mnist": 10_000, "rotated-mnist": 2_000, "cifar10": 10_000}

# Streams of the data's seed, so that none changes with another's use.
_SPLIT, _KEPT, _TRAIN, _TEST, _TURN_TRAIN, _TURN_TEST = range(6)


def load_images(root: Path, config: ImageDataConfig, cache: Path | None = None) -> ImageSet:
    """Read a data set, cut it to what is asked for, and turn it where that is asked for.

    - ``mnist``: the file's training and test images, upright.
    - ``rotated-mnist``: 12,000 training and 50,000 test images out of all digits of the same file, each turned by an
      angle of its own, uniform over the full circle.  This is the recipe of Larochelle et al. 2007, not their files,
      so that error rates compare with published ones only roughly.
    - ``cifar10``: 50,000 training and 10,000 test images, decoded from JPEG files.

    Images come in a stratified order: any first ones hold the classes as the whole does.  Statistics for normalising
    are those of the training images that are left.

    Args:
        root: folder of the data, as for ``--data``.
        config: which set, how much of it.
        cache: folder for decoded images; None: the user's cache.

    Raises:
        DataError: a missing or damaged file, or more images asked for than there are.
    """
    train, test, classes = _read(root, config, cache)
    if config.part == "validation":
        train, test = _cut(train, len(train[1]) - VALIDATION[config.dataset], (config.seed, _KEPT))
    train = _subset(train, config.train, "train", (config.seed, _TRAIN))
    test = _subset(test, config.test, "test", (config.seed, _TEST))
    if config.rotate_train:
        train = rotated(train[0], (config.seed, _TURN_TRAIN)), train[1]
    if config.rotate_test:
        test = rotated(test[0], (config.seed, _TURN_TEST)), test[1]
    return image_set(config.dataset, train, test, classes)


def _read(root: Path, config: ImageDataConfig, cache: Path | None) -> tuple[Labelled, Labelled, tuple[str, ...]]:
    if config.dataset == "cifar10":
        return *cifar10.read_cifar10(root, cache), cifar10.CLASSES
    train, test = mnist.read_mnist(root)
    if config.dataset == "mnist":
        return train, test, mnist.CLASSES
    images, labels = np.concatenate([train[0], test[0]]), np.concatenate([train[1], test[1]])
    wanted = ROTATED_TRAIN + ROTATED_TEST
    if len(labels) < wanted:
        raise DataError(f"{root / mnist.FILE} holds {len(labels)} digits; rotated-mnist needs {wanted}")
    chosen = stratified_order(labels, (config.seed, _SPLIT))[:wanted]
    images, labels = rotated(images[chosen], (config.seed, _TURN_TRAIN)), labels[chosen]
    first, rest = slice(ROTATED_TRAIN), slice(ROTATED_TRAIN, None)
    return (images[first], labels[first]), (images[rest], labels[rest]), mnist.CLASSES


def _cut(part: Labelled, first: int, seed: tuple[int, ...]) -> tuple[Labelled, Labelled]:
    """The first images of a stratified order, and the others."""
    images, labels = part
    order = stratified_order(labels, seed)
    kept, rest = order[:first], order[first:]
    return (images[kept], labels[kept]), (images[rest], labels[rest])


def _subset(part: Labelled, count: int | None, option: str, seed: tuple[int, ...]) -> Labelled:
    if count is not None and count > len(part[1]):
        raise DataError(f"{option} is {count}; there are {len(part[1])} images: ask for fewer, or leave it out for all")
    return _cut(part, count or len(part[1]), seed)[0]
