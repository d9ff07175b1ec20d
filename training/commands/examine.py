"""``emboundary-train examine``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from emboundary.model.blocks import Unit
from emboundary.model.inception import Segmenter
from emboundary.model.weights import WeightsError, load_segmenter
from emboundary.service.engine import find_model
from emboundary.service.errors import InputError, UsageError, first_line
from emboundary.training.commands.convert import sources
from emboundary.training.commands.shared import console
from emboundary.training.examination import Examination, examine
from emboundary.training.examination_page import FILTERS, STABILITY, WORST, draw_stability, draw_worst, page
from emboundary.training.filters import draw_filters
from emboundary.training.learning.runs import CONFIG, WEIGHTS, load_run
from emboundary.training.samples import made_up_samples, read_samples
from emboundary.training.storing import store_text, storing


def examine_model(model: str, out: Path, images: Sequence[str], sections: Sequence[str]) -> None:
    """Measure a model's symmetry, expansion, stability and worst moves, and write them down with pictures."""
    named = sources(images, sections)
    name, net = _network(model)
    context = net.spec.context
    probes = read_samples(named, context).probes if named else made_up_samples(context).probes
    if len({probe.shape for probe in probes}) > 1:
        raise UsageError("--images have sections of several sizes; examine them one by one")
    found = examine(
        net, probes, name=name, origin=_origin(images, sections), report=lambda part: console.print(f"{part} ...")
    )
    _write(out, found, net)
    console.print(f"{out}: examination.md, examination.json and pictures")


def _network(model: str) -> tuple[str, Segmenter]:
    """A run's network, or that of an exported model's folder, with its name."""
    if (Path(model) / CONFIG).is_file():
        run = load_run(Path(model))
        return run.config.name, run.network
    entry = find_model(model)
    try:
        return entry.description.name, load_segmenter(entry.path.parent / WEIGHTS)
    except WeightsError as error:
        raise InputError(f"model {model} cannot be examined: {first_line(error)}") from error


def _origin(images: Sequence[str], sections: Sequence[str]) -> str:
    if not images:
        return "synthetic membranes"
    ranges = f", sections {', '.join(sections)}" if sections else ""
    return f"{', '.join(Path(path).name for path in images)}{ranges}"


def _write(out: Path, found: Examination, net: Segmenter) -> None:
    first = net.stem.first
    if isinstance(first, Unit):
        with storing(out / FILTERS) as partial:
            draw_filters(partial, first.conv, title=f"{found.name}: filters of the first layer")
    with storing(out / STABILITY) as partial:
        draw_stability(partial, found)
    with storing(out / WORST) as partial:
        draw_worst(partial, found)
    store_text(out / "examination.md", page(found, filters=isinstance(first, Unit)))
    store_text(out / "examination.json", json.dumps(found.as_json(), indent=1) + "\n")
