"""Configurations of classifiers: network, images and how it learns; strict at the edge, frozen inside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from emboundary.training.images.config import ImageDataConfig
from emboundary.training.learning.recipe import LearningConfig
from emboundary.training.networks.building import NetworkConfig
from emboundary.training.strict import PositiveInt, read_based, validated


class ClassifierConfig(LearningConfig):
    """Everything that determines the training of a classifier, besides the images themselves.

    Attributes:
        evaluations: how many times, evenly over the steps and the last at their end, training and test images are
            scored.
        scored_training: of how many training images the training error is; their first ones in stratified order.
    """

    network: NetworkConfig
    data: ImageDataConfig
    evaluations: PositiveInt = 1
    scored_training: PositiveInt = 5000


def load_classifier_config(path: Path) -> ClassifierConfig:
    """Read and check a TOML file, or the JSON that a run keeps beside its weights.

    Raises:
        ConfigError: a missing file, text that does not parse, or a key that is unknown, missing or out of range.
    """
    return parse_classifier(read_based(path), origin=str(path))


def parse_classifier(table: dict[str, Any], *, origin: str) -> ClassifierConfig:
    """Check a table; ``origin`` names it in errors.

    Raises:
        ConfigError: a key that is unknown, missing or out of range.
    """
    return validated(ClassifierConfig, table, origin=f"config {origin}")
