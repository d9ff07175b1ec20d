"""``emboundary-train evaluate``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from statistics import fmean

import typer

from emboundary.model.description import ModelDescription, Precision
from emboundary.service.engine import OnnxEngine, find_model
from emboundary.training.config import load_config
from emboundary.training.crops.data import load_volume
from emboundary.training.publishing import HeldOut, held_out, map_scores
from emboundary.training.strict import ConfigError

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
    refuse_learned(engine.description, chosen)
    rows = []
    for described, (first, stop) in chosen:
        loaded = load_volume(data, described, (first, stop))
        scores, v_rand, threshold, seconds = map_scores(engine, loaded, tta=tta)
        rows.append(
            {
                "volume": loaded.name,
                "sections": [first, stop],
                **asdict(scores),
                "v_rand": v_rand,
                "v_rand_threshold": threshold,
                "seconds": seconds,
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


def refuse_learned(description: ModelDescription, chosen: tuple[HeldOut, ...]) -> None:
    """Refuse to score a model on sections that its description says it was trained on; volumes are told by name.

    Raises:
        ConfigError: names the model, the volume, and the sections.
    """
    for volume, (first, stop) in chosen:
        for seen in description.training:
            known = seen.sections.split(":")
            if seen.name != volume.name or not all(part.isdecimal() for part in known) or len(known) != 2:
                continue
            if first < int(known[1]) and int(known[0]) < stop:
                raise ConfigError(
                    f"model {description.name} was trained on sections {seen.sections} of {seen.name}, and is to be "
                    f"scored on {first}:{stop}; give sections that it has never seen with --sections"
                )
