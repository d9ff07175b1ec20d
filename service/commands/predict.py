"""``emboundary predict``: a volume in, its boundary map out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from emboundary.model.description import Precision
from emboundary.model.repository import DEFAULT_MODEL
from emboundary.service.engine import Device, OnnxEngine, find_model
from emboundary.service.intensity import Intensity
from emboundary.service.prediction import LocalPredictor, MapRequest, make_map
from emboundary.service.progress import create_reporter
from emboundary.service.tiling import DEFAULT_TILE
from emboundary.service.volumes import Dtype


def predict(
    source: Annotated[
        str,
        typer.Argument(
            metavar="INPUT", help="OME-Zarr or Zarr (path or URL), TIFF stack, HDF5 file.h5::/dataset, or PNG."
        ),
    ],
    target: Annotated[Path, typer.Argument(metavar="OUTPUT", help="Ends in .zarr (OME-Zarr), .tif or .png.")],
    model: Annotated[str, typer.Option(help="Name of a model, or path of a model.onnx.")] = DEFAULT_MODEL,
    device: Annotated[Device, typer.Option(help="auto takes a GPU if one works.")] = "auto",
    precision: Annotated[Precision, typer.Option(help="Arithmetic of the network.")] = "float32",
    tta: Annotated[bool, typer.Option("--tta", help="Average the 8 rotations and flips.")] = False,
    roi: Annotated[str | None, typer.Option(metavar="Z0:Z1,Y0:Y1,X0:X1", help="Map only this box, in voxels.")] = None,
    tile: Annotated[
        int | None, typer.Option(help=f"Side of a block in voxels, rounded up as needed.  [default: {DEFAULT_TILE}]")
    ] = None,
    dtype: Annotated[Dtype, typer.Option(help="Of OUTPUT; uint8 stores round(255 p).")] = "uint8",
    intensity: Annotated[
        str | None, typer.Option(metavar="MEAN,STD", help="Normalise by these, not by the whole volume's statistics.")
    ] = None,
    axes: Annotated[str | None, typer.Option(help="Names of INPUT's axes where it has none, e.g. zyx.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUTPUT, once the new map is whole.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout at the end.")] = False,
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
    reporter.say(f"{engine.description.name} {engine.description.version} on {engine.device_reason}")
    report = make_map(request, LocalPredictor(engine, tta), reporter)
    if not as_json:
        reporter.say(f"{target}: {report.voxels} voxels in {report.seconds:.1f} s")
        return
    answer = {
        "voxels": report.voxels,
        "seconds": report.seconds,
        "voxels_per_second": report.voxels_per_second,
        "model": engine.description.name,
        "device": engine.device,
        "precision": engine.precision,
        "blocks_done": report.blocks_done,
        "blocks_skipped": report.blocks_skipped,
        "intensity": [report.intensity.mean, report.intensity.std],
        "output": str(target),
    }
    typer.echo(json.dumps(answer))
