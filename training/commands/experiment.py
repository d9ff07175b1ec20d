"""``emboundary-train experiment``."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from emboundary.model.folding import expand_and_fold
from emboundary.model.footprint import count_parameters, flops_per_pixel
from emboundary.model.inception import STRIDE
from emboundary.service.engine import Device
from emboundary.training.commands.shared import console, torch_device, write_text
from emboundary.training.data import load_volume
from emboundary.training.evaluate import Scores, score_network
from emboundary.training.experiment import Experiment, Variant, load_experiment
from emboundary.training.progress import training_progress
from emboundary.training.runs import fit as fit_run


@dataclass(frozen=True)
class _Outcome:
    variant: str
    parameters: int
    flops_per_pixel: float
    final_loss: float
    one_pass: Scores
    eight_passes: Scores | None


def experiment(file: Path, data: Path, runs: Path, out: Path, *, device: Device, threads: int | None) -> None:
    """Train every variant that is not finished, score all, and write ``NAME.md`` and ``NAME.json``."""
    loaded = load_experiment(file)
    where = torch_device(device, threads)
    outcomes = [_run_variant(v, loaded, data, runs / file.stem, where) for v in loaded.variants]
    record = {
        "question": loaded.question,
        "sections": list(loaded.sections),
        "outcomes": [asdict(o) for o in outcomes],
        "configs": {v.label: v.config.model_dump(mode="json") for v in loaded.variants},
    }
    write_text(out / f"{file.stem}.json", json.dumps(record, indent=2) + "\n")
    write_text(out / f"{file.stem}.md", _experiment_markdown(loaded, outcomes))


def _run_variant(variant: Variant, loaded: Experiment, data: Path, runs: Path, device: torch.device) -> _Outcome:
    with training_progress(variant.label, console) as report:
        run = fit_run(variant.config, data, runs / variant.folder, device=device, report=report)
    volume = load_volume(data, variant.config.data[0], loaded.sections)
    exact = variant.config.model.symmetry == "d4"
    return _Outcome(
        variant=variant.label,
        parameters=count_parameters(run.network),
        flops_per_pixel=flops_per_pixel(expand_and_fold(run.network), STRIDE),
        final_loss=run.final_loss,
        one_pass=score_network(run.network, volume, tta=False),
        eight_passes=None if exact else score_network(run.network, volume, tta=True),
    )


def _experiment_markdown(loaded: Experiment, outcomes: list[_Outcome]) -> str:
    first = loaded.variants[0].config
    lines = [
        f"# {loaded.question}",
        "",
        f"{first.data[0].name}: trained on sections {first.data[0].sections[0]}:{first.data[0].sections[1]}, scored on "
        f"sections {loaded.sections[0]}:{loaded.sections[1]}; {first.optimiser.steps} steps, one seed each. "
        "The JSON beside this page holds every configuration.",
        "",
        "| variant | parameters | kFLOP/px | final loss "
        "| AUC, one pass | AP, one pass | AUC, 8 passes | AP, 8 passes |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for o in outcomes:
        eight = ("exact: the same",) * 2
        if o.eight_passes is not None:
            eight = (f"{o.eight_passes.roc_auc:.5f}", f"{o.eight_passes.average_precision:.4f}")
        lines.append(
            f"| {o.variant} | {o.parameters:,} | {o.flops_per_pixel / 1e3:.1f} | {o.final_loss:.4f} "
            f"| {o.one_pass.roc_auc:.5f} | {o.one_pass.average_precision:.4f} | {eight[0]} | {eight[1]} |"
        )
    return "\n".join(lines) + "\n"
