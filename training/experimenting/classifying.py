"""A classifier as a variant of an experiment: trained, and scored on the test part of its images."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import torch
from rich.console import Console

from emboundary.model.footprint import count_flops, count_parameters
from emboundary.training.classifying.config import ClassifierConfig
from emboundary.training.classifying.runs import fit_classifier
from emboundary.training.experimenting.outcome import Outcome
from emboundary.training.experimenting.plan import Variant
from emboundary.training.images.config import ImageDataConfig
from emboundary.training.images.loading import load_images
from emboundary.training.images.sets import ImageSet
from emboundary.training.learning.progress import training_progress

# As the page calls what ``scores.json`` holds.
_NAMES = {
    "test_error": "test error %",
    "train_error": "train error %",
    "test_loss": "test loss",
    "train_loss": "train loss",
}


def run_classifier(variant: Variant, data: Path, folder: Path, *, device: torch.device, console: Console) -> Outcome:
    """Train, or take up, and score."""
    config = variant.config
    assert isinstance(config, ClassifierConfig)
    # Batches and their changes are the sampler's: variants that differ in them share the images.
    images = _images(data, config.data.model_copy(update={"batch": 1, "shift": 0, "mirror": False}))
    with training_progress(variant.folder, console) as report:
        run = fit_classifier(config, images, folder, device=device, report=report)
    last = run.scores[-1]
    return Outcome(
        variant=variant.label,
        seed=config.seed,
        parameters=count_parameters(run.network),
        flops=count_flops(run.network, (images.channels, images.size, images.size)),
        per="image",
        final_loss=run.final_loss,
        scores={name: last[key] for key, name in _NAMES.items()},
        curve=run.scores,
        seconds=last["seconds"],
    )


@lru_cache(maxsize=1)
def _images(data: Path, config: ImageDataConfig) -> ImageSet:
    """Read once for variants that follow each other and share their images."""
    return load_images(data, config)
