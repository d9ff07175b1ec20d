"""``emboundary predict``: a volume in, its boundary map out."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from emboundary.model.description import Precision
from emboundary.model.repository import DEFAULT_MODEL
from emboundary.service.commands import options
from emboundary.service.commands.summary import show_summary
from emboundary.service.engine import OnnxEngine, find_model
from emboundary.service.intensity import Intensity
from emboundary.service.prediction import LocalPredictor, MapRequest, make_map
from emboundary.service.progress import create_reporter
from emboundary.service.tiling import DEFAULT_TILE


def predict(
    source: options.Source,
    target: options.Target,
    model: Annotated[str, typer.Option(help="Name of a model, or path of a model.onnx.")] = DEFAULT_MODEL,
    device: options.DeviceChoice = "auto",
    precision: Annotated[Precision, typer.Option(help="Arithmetic of the network.")] = "float32",
    tta: options.Tta = False,
    roi: options.Roi = None,
    tile: Annotated[
        int | None, typer.Option(help=f"Side of a block in voxels, rounded up as needed.  [default: {DEFAULT_TILE}]")
    ] = None,
    dtype: options.OutputDtype = "uint8",
    intensity: options.MeanStd = None,
    axes: options.Axes = None,
    overwrite: options.Overwrite = False,
    as_json: options.AsJson = False,
) -> None:
    """Map the neuron boundaries of a volume: a probability for every voxel."""
    reporter = create_reporter(Console(stderr=True))
    request = MapRequest(
        source=source,
        target=target,
        axes=axes,
        roi=roi,
        tile=tile,
        dtype=dtype,
        intensity=None if intensity is None else Intensity.parse(intensity),
        overwrite=overwrite,
    )
    engine = OnnxEngine.open(find_model(model), device, precision)
    reporter.say(f"model {engine.description.name}, version {engine.description.version}, on {engine.device_reason}")
    report = make_map(request, LocalPredictor(engine, tta), reporter)
    show_summary(
        report,
        target,
        model=engine.description.name,
        device=engine.device,
        precision=engine.precision,
        reporter=reporter,
        as_json=as_json,
    )
