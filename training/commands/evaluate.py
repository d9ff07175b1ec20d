"""``emboundary-train evaluate``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import typer

from emboundary.service.engine import OnnxEngine, find_model
from emboundary.training.config import load_config
from emboundary.training.data import load_volume
from emboundary.training.evaluate import score, segment


def evaluate(model: str, data: Path, config: Path, sections: tuple[int, int], *, tta: bool) -> None:
    """Score one exported model and print one JSON object."""
    engine = OnnxEngine.open(find_model(model), "auto")
    volume = load_volume(data, load_config(config).data[0], sections)
    probability, seconds = segment(engine, volume, tta=tta)
    result = {
        "model": engine.description.name,
        "version": engine.description.version,
        "volume": volume.name,
        "sections": list(sections),
        "tta": tta,
        **asdict(score(volume.target, probability)),
        "seconds": seconds,
        "device": engine.device,
    }
    typer.echo(json.dumps(result))
