"""``emboundary-train experiment``."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

import torch

from emboundary.model.folding import expand_and_fold
from emboundary.model.footprint import count_parameters, flops_per_pixel
from emboundary.model.inception import STRIDE
from emboundary.service.engine import Device
from emboundary.training.commands.shared import console, torch_device
from emboundary.training.crops.data import load_volume
from emboundary.training.experiment import Experiment, Variant, load_experiment
from emboundary.training.learning.progress import training_progress
from emboundary.training.learning.runs import fit as fit_run
from emboundary.training.metrics import BoundaryScores
from emboundary.training.scoring.evaluate import score_network
from emboundary.training.storing import store_text


@dataclass(frozen=True)
class _Outcome:
    variant: str
    parameters: int
    flops_per_pixel: float
    final_loss: float
    one_pass: dict[str, BoundaryScores]
    eight_passes: dict[str, BoundaryScores] | None


def experiment(file: Path, data: Path, runs: Path, out: Path, *, device: Device, threads: int | None) -> None:
    """Train every variant that is not finished, score all, and write ``NAME.md`` and ``NAME.json``."""
    loaded = load_experiment(file)
    where = torch_device(device, threads)
    outcomes = [_run_variant(v, loaded.eight, data, runs / file.stem, where) for v in loaded.variants]
    record = {
        "question": loaded.question,
        "scored": {volume.name: list(sections) for volume, sections in loaded.variants[0].scored},
        "outcomes": [asdict(o) for o in outcomes],
        "configs": {v.label: v.config.model_dump(mode="json") for v in loaded.variants},
    }
    store_text(out / f"{file.stem}.json", json.dumps(record, indent=2) + "\n")
    store_text(out / f"{file.stem}.md", _experiment_markdown(loaded, outcomes))


def _run_variant(variant: Variant, eight: bool, data: Path, runs: Path, device: torch.device) -> _Outcome:
    with training_progress(variant.label, console) as report:
        run = fit_run(variant.config, data, runs / variant.folder, device=device, report=report)
    volumes = [load_volume(data, volume, sections) for volume, sections in variant.scored]
    eight = eight and variant.config.model.symmetry != "d4"
    return _Outcome(
        variant=variant.label,
        parameters=count_parameters(run.network),
        flops_per_pixel=flops_per_pixel(expand_and_fold(run.network), STRIDE, run.network.spec.channels),
        final_loss=run.final_loss,
        one_pass={volume.name: score_network(run.network, volume, tta=False) for volume in volumes},
        eight_passes={v.name: score_network(run.network, v, tta=True) for v in volumes} if eight else None,
    )


def _experiment_markdown(loaded: Experiment, outcomes: list[_Outcome]) -> str:
    first = loaded.variants[0]
    names = [volume.name for volume, _ in first.scored]
    trained = ", ".join(f"{d.name} {d.sections[0]}:{d.sections[1]}" for d in first.config.data)
    scored = ", ".join(f"{volume.name} {start}:{stop}" for volume, (start, stop) in first.scored)
    heads = ["variant", "parameters", "kFLOP/px", "final loss", *names, *(["mean"] if len(names) > 1 else [])]
    heads += ["8 passes" if len(names) == 1 else "mean, 8 passes"] * loaded.eight
    lines = [
        f"# {loaded.question}",
        "",
        f"Trained on sections {trained}; scored on sections {scored}, ROC AUC / average precision, one pass; "
        f"{first.config.optimiser.steps} steps and one seed, if nothing else is said. The JSON beside this page holds "
        "every configuration.",
        "",
        f"| {' | '.join(heads)} |",
        "|---" * len(heads) + "|",
    ]
    for o in outcomes:
        cells = [o.variant, f"{o.parameters:,}", f"{o.flops_per_pixel / 1e3:.1f}", f"{o.final_loss:.4f}"]
        cells += [_cell([o.one_pass[name]]) for name in names]
        cells += [_cell(list(o.one_pass.values()))] * (len(names) > 1)
        if loaded.eight:
            cells.append("exact: the same" if o.eight_passes is None else _cell(list(o.eight_passes.values())))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(scores: list[BoundaryScores]) -> str:
    return f"{fmean(s.roc_auc for s in scores):.5f} / {fmean(s.average_precision for s in scores):.4f}"
