"""``emboundary-train evaluate``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from statistics import fmean

import typer

from emboundary.model.description import Precision
from emboundary.service.engine import OnnxEngine, find_model
from emboundary.training.config import load_config
from emboundary.training.origins import refuse_learned
from emboundary.training.publishing import held_out, map_figures

_MEANS = ("roc_auc", "average_precision", "best_f1", "v_rand")


def evaluate(
    model: str,
    data: Path,
    config: Path,
    *,
    sections: tuple[int, int] | None,
    volume: str | None,
    tta: bool,
    precision: Precision = "float32",
) -> None:
    """Score one exported model and print one JSON object."""
    engine = OnnxEngine.open(find_model(model), "auto", precision)
    chosen = held_out(load_config(config), sections, volume, origin=f"config {config}")
    refuse_learned(f"model {engine.description.name}", engine.description.training, chosen)
    rows = []
    for described, (first, stop) in chosen:
        found = map_figures(engine, data, described, (first, stop), tta=tta)
        rows.append(
            {
                "volume": described.name,
                "sections": [first, stop],
                **asdict(found.pixels),
                "v_rand": found.v_rand,
                "v_rand_threshold": found.threshold,
                "v_rand_threshold_chosen_on": list(found.chosen_on),
                "seconds": found.seconds,
            }
        )
    result = {
        "model": engine.description.name,
        "version": engine.description.version,
        "sha256": engine.description.sha256,
        "tta": tta,
        "precision": precision,
        "device": engine.device,
        "volumes": rows,
        "mean": {key: fmean(row[key] for row in rows) for key in _MEANS},
    }
    typer.echo(json.dumps(result))
