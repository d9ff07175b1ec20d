"""``emboundary predict``: a volume in, its boundary map out."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from emboundary.model.repository import DEFAULT_MODEL
from emboundary.service.commands import options
from emboundary.service.commands.map_options import MapOptions, with_map_options
from emboundary.service.commands.mapping import refuse_incomplete, run_request
from emboundary.service.commands.summary import show_summary
from emboundary.service.engine import GpuOptions, OnnxEngine, find_model
from emboundary.service.progress import create_reporter
from emboundary.service.run.predictor import LocalPredictor
from emboundary.service.settings import MEBIBYTE


@with_map_options
def predict(
    *,
    model: Annotated[str, typer.Option(help="Name of a model, or path of a model.onnx.")] = DEFAULT_MODEL,
    device: options.DeviceChoice = "auto",
    precision: options.PrecisionChoice = "float32",
    gpu_memory: options.GpuMemory = None,
    tensorrt: options.TensorRt = False,
    chosen: MapOptions,
    progress: options.ProgressStyle = "auto",
    as_json: options.AsJson = False,
) -> None:
    """Map the neuron boundaries of a volume: a probability for every voxel."""
    reporter = create_reporter(Console(stderr=True), progress)
    request = chosen.request()
    gpu = GpuOptions(None if gpu_memory is None else gpu_memory * MEBIBYTE, tensorrt=tensorrt)
    engine = OnnxEngine.open(find_model(model), device, precision, gpu)
    reporter.say(f"model {engine.description.name}, version {engine.description.version}, on {engine.device_reason}")
    report = run_request(request, LocalPredictor(engine, chosen.tta), reporter)
    show_summary(
        report,
        request.target,
        model=engine.description.name,
        device=engine.device,
        precision=engine.precision,
        reporter=reporter,
        as_json=as_json,
    )
    refuse_incomplete(report, request.target)
