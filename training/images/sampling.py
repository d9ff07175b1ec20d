"""Batches of labelled images; every batch is a pure function of (seed, step)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from emboundary.training.images.sets import Images, ImageSet, Labels


@dataclass(frozen=True)
class ImageBatch:
    """Normalised images (N, channel, y, x), float32, and their labels (N,), int64."""

    images: NDArray[np.float32]
    labels: Labels


@dataclass(frozen=True)
class ImageSampler:
    """Shuffled, augmented batches of the training images.

    The batches' images are one endless row of epochs, each a new order of all images; so every image comes once per
    epoch, also where an epoch ends within a batch.

    Attributes:
        images: the set.
        batch_size: images per step.
        seed: of order and changes.
        shift: largest move in pixels along each axis; grey level 0 comes in.
        mirror: mirror in x with probability 1/2.
    """

    images: ImageSet
    batch_size: int
    seed: int
    shift: int = 0
    mirror: bool = False

    def batch(self, step: int) -> ImageBatch:
        """The batch of one step."""
        count = len(self.images.train_labels)
        epochs, places = np.divmod(np.arange(step * self.batch_size, (step + 1) * self.batch_size), count)
        chosen = np.concatenate(
            [_order(self.seed, int(epoch), count)[places[epochs == epoch]] for epoch in np.unique(epochs)]
        )
        changed = self._changed(self.images.train_images[chosen], step)
        return ImageBatch(self.images.normalised(changed), self.images.train_labels[chosen])

    def _changed(self, images: Images, step: int) -> Images:
        # One stream for each change: switching one off leaves the other as it is.
        if self.shift:
            moves = np.random.default_rng([self.seed, step, 1]).integers(2 * self.shift + 1, size=(2, len(images)))
            images = _moved(images, self.shift, moves)
        if self.mirror:
            heads = np.random.default_rng([self.seed, step, 2]).random(len(images)) < 0.5
            images = np.where(heads[:, None, None, None], images[..., ::-1], images)
        return images


def _moved(images: Images, shift: int, moves: NDArray[np.int64]) -> Images:
    """Image n moved by ``shift - moves[:, n]`` pixels along (y, x)."""
    margin = (shift, shift)
    padded = np.pad(images, ((0, 0), (0, 0), margin, margin))
    windows = sliding_window_view(padded, images.shape[2:], axis=(2, 3))  # (n, channel, move y, move x, y, x)
    moved: Images = windows[np.arange(len(images)), :, moves[0], moves[1]]
    return moved


@lru_cache(maxsize=8)
def _order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, epoch, 0, 3]).permutation(count).astype(np.int64)
