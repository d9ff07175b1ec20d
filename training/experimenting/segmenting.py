"""A segmenter as a variant of an experiment: trained, and scored on held-out sections."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import torch
from rich.console import Console

from emboundary.model.folding import expand_and_fold
from emboundary.model.footprint import count_parameters, flops_per_pixel
from emboundary.model.groups import D4
from emboundary.model.inception import STRIDE, Segmenter
from emboundary.training.config import TrainConfig
from emboundary.training.crops.data import LabelledVolume, load_volume
from emboundary.training.experimenting.outcome import Outcome
from emboundary.training.experimenting.plan import Variant
from emboundary.training.learning.progress import training_progress
from emboundary.training.learning.runs import fit
from emboundary.training.metrics import boundary_scores, thinned
from emboundary.training.scoring.evaluate import map_network
from emboundary.training.scoring.segmentation import section_labels


def run_segmenter(
    variant: Variant, data: Path, folder: Path, *, eight: bool, device: torch.device, console: Console
) -> Outcome:
    """Train, or take up, and score with one pass; with eight too if asked for and the network is not exact."""
    config = variant.config
    assert isinstance(config, TrainConfig)
    with training_progress(variant.folder, console) as report:
        run = fit(config, data, folder, device=device, report=report)
    volumes = [load_volume(data, volume, sections) for volume, sections in variant.scored]
    scores = _scores(run.network, volumes, tta=False)
    if eight and run.network.spec.law != D4:
        scores |= {f"{name}, 8 passes": value for name, value in _scores(run.network, volumes, tta=True).items()}
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


def _scores(network: Segmenter, volumes: Sequence[LabelledVolume], *, tta: bool) -> dict[str, float]:
    """AUC, AP and V_rand at 0.5 (which gaps in boundaries lower) on each volume, and their means over the volumes."""
    found: dict[str, dict[str, float]] = {"AUC": {}, "AP": {}, "V_rand at 0.5": {}}
    for volume in volumes:
        probability = map_network(network, volume, tta=tta)
        pixels = boundary_scores(volume.target, probability)
        regions = thinned(section_labels(volume.target.astype(bool)), probability, (0.5,))
        values = (pixels.roc_auc, pixels.average_precision, regions.v_rand.f)
        for kind, value in zip(found.values(), values, strict=True):
            kind[volume.name] = value
    named = {f"{volume.name} {kind}": found[kind][volume.name] for volume in volumes for kind in found}
    if len(volumes) > 1:
        named |= {f"mean {kind}": fmean(of_volumes.values()) for kind, of_volumes in found.items()}
    return named
