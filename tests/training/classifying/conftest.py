"""A tiny classifier and images that it can learn: bright on the left, bright on the right."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from emboundary.training.classifying.config import ClassifierConfig, parse_classifier
from emboundary.training.images.sets import ImageSet, image_set
from emboundary.training.strict import varied

TINY = """
name = "tiny"
evaluations = 3
scored_training = 10

[network]
kind = "pooling-cnn"
filters = 4
pool = { kind = "stochastic" }
dropout = 0.2

[data]
dataset = "mnist"
batch = 8

[optimiser]
steps = 6
learning_rate = 1e-2
ema_steps = 0
"""


@pytest.fixture
def make_classifier() -> Callable[..., ClassifierConfig]:
    """The tiny configuration with some dotted keys set."""

    def make(changes: dict[str, Any] | None = None) -> ClassifierConfig:
        table = varied(tomllib.loads(TINY), changes or {}, origin="a test")
        return parse_classifier(table, origin="of a test")

    return make


@pytest.fixture(scope="session")
def images() -> ImageSet:
    """Forty images of 12 x 12 pixels."""
    rng = np.random.default_rng(0)
    parts = []
    for _ in range(2):
        labels = np.arange(20, dtype=np.int64) % 2
        pixels = rng.integers(60, size=(20, 1, 12, 12), dtype=np.uint8)
        pixels[labels == 0, ..., :6] += 150
        pixels[labels == 1, ..., 6:] += 150
        parts.append((pixels, labels))
    return image_set("sides", *parts, ("left", "right"))
