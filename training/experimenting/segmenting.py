"""A segmenter as a variant of an experiment: trained, and scored on held-out sections."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

import torch
from rich.console import Console

from emboundary.model.folding import expand_and_fold
from emboundary.model.footprint import count_parameters, flops_per_pixel
from emboundary.model.groups import D4
from emboundary.model.inception import STRIDE
from emboundary.training.config import TrainConfig
from emboundary.training.crops.data import load_volume
from emboundary.training.experimenting.outcome import Outcome
from emboundary.training.experimenting.plan import Variant
from emboundary.training.learning.progress import training_progress
from emboundary.training.learning.runs import fit
from emboundary.training.metrics import BoundaryScores
from emboundary.training.scoring.evaluate import score_network


def run_segmenter(
    variant: Variant, data: Path, folder: Path, *, eight: bool, device: torch.device, console: Console
) -> Outcome:
    """Train, or take up, and score with one pass; with eight too if asked for and the network is not exact."""
    config = variant.config
    assert isinstance(config, TrainConfig)
    with training_progress(variant.folder, console) as report:
        run = fit(config, data, folder, device=device, report=report)
    volumes = [load_volume(data, volume, sections) for volume, sections in variant.scored]
    one = {volume.name: score_network(run.network, volume, tta=False) for volume in volumes}
    scores = _named(one, "")
    if eight and run.network.spec.law != D4:
        scores |= _named({v.name: score_network(run.network, v, tta=True) for v in volumes}, ", 8 passes")
    return Outcome(
        variant=variant.label,
        seed=config.seed,
        parameters=count_parameters(run.network),
        flops=flops_per_pixel(expand_and_fold(run.network), STRIDE, run.network.spec.channels),
        per="px",
        final_loss=run.final_loss,
        scores=scores,
        curve=[],
        seconds=None,
    )


def _named(scores: dict[str, BoundaryScores], passes: str) -> dict[str, float]:
    named: dict[str, float] = {}
    for name, of_volume in scores.items():
        named[f"{name} AUC{passes}"] = of_volume.roc_auc
        named[f"{name} AP{passes}"] = of_volume.average_precision
    if len(scores) > 1:
        named[f"mean AUC{passes}"] = fmean(s.roc_auc for s in scores.values())
        named[f"mean AP{passes}"] = fmean(s.average_precision for s in scores.values())
    return named
