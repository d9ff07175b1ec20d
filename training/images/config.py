"""What a classification network learns from: the data set, how much of it, and how its batches are changed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from emboundary.training.strict import PositiveInt, Strict

Dataset = Literal["mnist", "rotated-mnist", "cifar10"]
Part = Literal["test", "validation"]


class ImageDataConfig(Strict):
    """A data set of labelled images and the batches drawn from it.

    Attributes:
        dataset: ``mnist`` (upright digits), ``rotated-mnist`` or ``cifar10``; see ``load_images``.
        train: training images, as many of each class as the whole has in proportion; None: all.
        test: the same of the images that are scored.
        part: what is scored: the ``test`` images, or a ``validation`` part that is then taken from the training
            images (2,000 of rotated MNIST, 10,000 of the others), for choosing between networks.
        rotate_train: turn every training image by an angle of its own, uniform over the full circle.
        rotate_test: the same of the images that are scored.
        seed: of subsets and angles; training's own seed does not touch them, so that its repetitions share the images.
        batch: images per step.
        shift: augmentation: each image of a batch is moved by up to so many pixels along both axes; 0 comes in.
        mirror: augmentation: each image of a batch is mirrored in x with probability 1/2.
    """

    dataset: Dataset
    train: PositiveInt | None = None
    test: PositiveInt | None = None
    part: Part = "test"
    rotate_train: bool = False
    rotate_test: bool = False
    seed: Annotated[int, Field(ge=0)] = 0
    batch: PositiveInt = 128
    shift: Annotated[int, Field(ge=0)] = 0
    mirror: bool = False

    @model_validator(mode="after")
    def _turns_once(self) -> ImageDataConfig:
        if self.dataset == "rotated-mnist" and (self.rotate_train or self.rotate_test):
            raise ValueError("rotated-mnist is turned already: leave rotate_train and rotate_test out")
        return self
