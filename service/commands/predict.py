"""``emboundary predict``: a volume in, its boundary map out."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from emboundary.model.description import Precision
from emboundary.model.repository import DEFAULT_MODEL
from emboundary.service.commands import options
from emboundary.service.commands.mapping import build_request, refuse_incomplete, run_request
from emboundary.service.commands.summary import show_summary
from emboundary.service.engine import OnnxEngine, find_model
from emboundary.service.progress import create_reporter
from emboundary.service.run.predictor import LocalPredictor
from emboundary.service.run.tiling import DEFAULT_TILE


def predict(
    source: options.Source,
    target: options.Target,
    model: Annotated[str, typer.Option(help="Name of a model, or path of a model.onnx.")] = DEFAULT_MODEL,
    device: options.DeviceChoice = "auto",
    precision: Annotated[Precision, typer.Option(help="Arithmetic of the network.")] = "float32",
    tta: options.Tta = False,
    roi: options.Roi = None,
    tile: Annotated[
        int | None,
        typer.Option(help=f"A tile and its halo hold as many pixels as this square.  [default: {DEFAULT_TILE}]"),
    ] = None,
    dtype: options.OutputDtype = "uint8",
    intensity: options.MeanStd = None,
    axes: options.Axes = None,
    voxel_size: options.VoxelSize = None,
    chunk: options.Chunk = None,
    shard: options.Shard = None,
    ome_zarr: options.OmeZarrVersion = "0.5",
    pyramid: options.Pyramid = True,
    mask: options.Mask = None,
    fill: options.Fill = None,
    fill_missing: options.FillMissing = None,
    clahe: options.EqualiseSections = False,
    rescale: options.Rescale = False,
    overwrite: options.Overwrite = False,
    progress: options.ProgressStyle = "auto",
    as_json: options.AsJson = False,
) -> None:
    """Map the neuron boundaries of a volume: a probability for every voxel."""
    reporter = create_reporter(Console(stderr=True), progress)
    request = build_request(
        source=source,
        target=target,
        axes=axes,
        voxel_size=voxel_size,
        roi=roi,
        tile=tile,
        dtype=dtype,
        intensity=intensity,
        overwrite=overwrite,
        chunk=chunk,
        shard=shard,
        ome_zarr=ome_zarr,
        pyramid=pyramid,
        mask=mask,
        fill=fill,
        fill_missing=fill_missing,
        clahe=clahe,
        rescale=rescale,
    )
    engine = OnnxEngine.open(find_model(model), device, precision)
    reporter.say(f"model {engine.description.name}, version {engine.description.version}, on {engine.device_reason}")
    report = run_request(request, LocalPredictor(engine, tta), reporter)
    show_summary(
        report,
        target,
        model=engine.description.name,
        device=engine.device,
        precision=engine.precision,
        reporter=reporter,
        as_json=as_json,
    )
    refuse_incomplete(report, target)
