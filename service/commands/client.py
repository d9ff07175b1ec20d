"""``emboundary client``: what a service elsewhere can do, for volumes here and for volumes there."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from emboundary.service.client.streaming import DEFAULT_CONCURRENCY, RemoteModel
from emboundary.service.commands import client_jobs, options
from emboundary.service.commands.connecting import ApiKey, Model, Url, Version, connected
from emboundary.service.commands.map_options import MapOptions, with_map_options
from emboundary.service.commands.mapping import refuse_incomplete, run_request
from emboundary.service.commands.summary import show_summary
from emboundary.service.progress import create_reporter

client = typer.Typer(help="Ask a service elsewhere.", add_completion=False, rich_markup_mode=None)


@client.command()
@with_map_options
def predict(
    *,
    url: Url,
    api_key: ApiKey = None,
    model: Model = None,
    version: Version = None,
    concurrency: Annotated[int, typer.Option(min=1, max=64, help="Requests under way at a time.")] = (
        DEFAULT_CONCURRENCY
    ),
    chosen: MapOptions,
    progress: options.ProgressStyle = "auto",
    as_json: options.AsJson = False,
) -> None:
    """Map a volume that lies here with a network that runs there; gives the same map as `emboundary predict`."""
    reporter = create_reporter(Console(stderr=True), progress)
    request = chosen.request()
    with connected(url, api_key, reporter) as connection:
        remote = RemoteModel(
            connection,
            connection.model(model, version),
            tta=chosen.tta,
            # What is resampled again here must not have been rounded there.
            dtype="float32" if request.rescale else request.dtype,
            concurrency=concurrency,
        )
        reporter.say(f"{remote.model.name} {remote.model.version} at {connection.url}")
        report = run_request(request, remote, reporter)
    show_summary(
        report,
        request.target,
        model=remote.model.name,
        device=str(remote.device),
        precision="float32",
        reporter=reporter,
        as_json=as_json,
    )
    refuse_incomplete(report, request.target)


for _command in (client_jobs.submit, client_jobs.jobs, client_jobs.events, client_jobs.cancel):
    client.command()(_command)
