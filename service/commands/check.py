"""``emboundary check``: will this model work on this volume, on this machine; answered in under a minute."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated

import typer
from rich.console import Console

from emboundary.model.repository import DEFAULT_MODEL
from emboundary.service import checking
from emboundary.service.checking.grey_values import Comparison, columns
from emboundary.service.commands import options
from emboundary.service.commands.findings import findings_table
from emboundary.service.engine import OnnxEngine, find_model
from emboundary.service.preparing.intensity import Intensity
from emboundary.service.progress import create_reporter
from emboundary.service.run.request import parse_voxel_size
from emboundary.service.run.tiling import DEFAULT_TILE

# The histogram reaches this many standard deviations to both sides, in so many columns of so many eighths of a line.
_REACH, _COLUMNS = 4.0, 40
_BARS = " ▁▂▃▄▅▆▇█"
_LINES = 3


def check(
    source: options.Source,
    model: Annotated[str, typer.Option(help="Name of a model, or path of a model.onnx.")] = DEFAULT_MODEL,
    device: options.DeviceChoice = "auto",
    precision: options.PrecisionChoice = "float32",
    tta: options.Tta = False,
    roi: options.Roi = None,
    tile: Annotated[int, typer.Option(help="A tile and its halo hold as many pixels as this square.")] = DEFAULT_TILE,
    intensity: options.MeanStd = None,
    axes: options.Axes = None,
    voxel_size: options.VoxelSize = None,
    as_json: options.AsJson = False,
) -> None:
    """Try a model on a few places of a volume: what to expect of a run; exit code 1 if it would not work."""
    request = checking.CheckRequest(
        source=source,
        axes=axes,
        voxel_size_nm=parse_voxel_size(voxel_size),
        roi=roi,
        tile=tile,
        intensity=None if intensity is None else Intensity.parse(intensity),
        tta=tta,
    )
    reporter = create_reporter(Console(stderr=True))
    engine = OnnxEngine.open(find_model(model), device, precision)
    described = engine.description
    reporter.say(f"model {described.name}, version {described.version}, on {engine.device_reason}")
    report = checking.check(request, engine, reporter)
    if as_json:
        head = {"model": described.name, "device": engine.device, "precision": engine.precision, "tta": tta}
        typer.echo(json.dumps(head | report.to_json()))
    else:
        console = Console()
        console.print(findings_table(report.findings()))
        comparison = report.grey_values.comparison
        for line in () if comparison is None else histogram(comparison):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        console.print(f"checked in {report.check_seconds:.0f} s")
    raise typer.Exit(0 if report.well else 1)


def histogram(comparison: Comparison) -> Iterator[str]:
    """Lines that show how often each normalised grey value occurs, in the volume and in the training data."""
    shown = [
        (title, columns(shares, _COLUMNS, _REACH))
        for title, shares in (("this volume", comparison.volume), ("training data", comparison.training))
    ]
    highest = max(max(heights) for _, heights in shown)
    yield ""
    for title, heights in shown:
        eighths = [round(height / highest * 8 * _LINES) for height in heights]
        for line in reversed(range(_LINES)):
            label = title if line == 0 else ""
            yield f"{label:>13}  " + "".join(_BARS[min(8, max(0, n - 8 * line))] for n in eighths)
    side = _COLUMNS // 2
    yield f"{'':13}  {f'-{_REACH:g}':<{side}}{0:<{side - 2}}{f'+{_REACH:g}':>2}"
    yield f"{'':13}  grey value - mean, in standard deviations; training: the bundled sample of the same tissue"
