"""``emboundary client``: what a service elsewhere can do for volumes here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console
from stamina.instrumentation import RetryDetails, set_on_retry_hooks

from emboundary.service.client.http import BoundaryClient
from emboundary.service.client.streaming import RemoteModel
from emboundary.service.commands import options
from emboundary.service.commands.mapping import build_request, refuse_incomplete, run_request
from emboundary.service.commands.summary import show_summary
from emboundary.service.progress import Reporter, create_reporter

client = typer.Typer(help="Ask a service elsewhere.", add_completion=False, rich_markup_mode=None)


@client.callback()
def _client() -> None:
    """Ask a service elsewhere."""


@client.command()
def predict(
    source: options.Source,
    target: options.Target,
    url: Annotated[str, typer.Option(help="Where the service is, e.g. http://127.0.0.1:8000.")],
    model: Annotated[str | None, typer.Option(help="Name of a served model.  [default: the service's]")] = None,
    tta: options.Tta = False,
    roi: options.Roi = None,
    tile: Annotated[
        int | None,
        typer.Option(help="A tile and its halo hold as many pixels as this square.  [default: what suits the service]"),
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
    """Map a volume that lies here with a network that runs there; gives the same map as `emboundary predict`."""
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
    with BoundaryClient.connect(url) as connection, _retries_said(reporter):
        # What is resampled again here must not have been rounded there.
        remote = RemoteModel(connection, connection.model(model), tta=tta, dtype="float32" if rescale else dtype)
        reporter.say(f"{remote.model.name} {remote.model.version} at {connection.url}")
        report = run_request(request, remote, reporter)
    show_summary(
        report,
        target,
        model=remote.model.name,
        device=str(remote.device),
        precision="float32",
        reporter=reporter,
        as_json=as_json,
    )
    refuse_incomplete(report, target)


@contextmanager
def _retries_said(reporter: Reporter) -> Iterator[None]:
    """Tell people why nothing moves while the service is busy or out of reach."""

    def say(details: RetryDetails) -> None:
        reporter.say(f"{details.caused_by}; trying again in {details.wait_for:.1f} s")

    set_on_retry_hooks([say])
    try:
        yield
    finally:
        set_on_retry_hooks(None)
