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
from emboundary.service.commands.map_options import MapOptions, with_map_options
from emboundary.service.commands.mapping import refuse_incomplete, run_request
from emboundary.service.commands.summary import show_summary
from emboundary.service.progress import Reporter, create_reporter

client = typer.Typer(help="Ask a service elsewhere.", add_completion=False, rich_markup_mode=None)


@client.callback()
def _client() -> None:
    """Ask a service elsewhere."""


@client.command()
@with_map_options
def predict(
    *,
    url: Annotated[str, typer.Option(help="Where the service is, e.g. http://127.0.0.1:8000.")],
    model: Annotated[str | None, typer.Option(help="Name of a served model.  [default: the service's]")] = None,
    chosen: MapOptions,
    progress: options.ProgressStyle = "auto",
    as_json: options.AsJson = False,
) -> None:
    """Map a volume that lies here with a network that runs there; gives the same map as `emboundary predict`."""
    reporter = create_reporter(Console(stderr=True), progress)
    request = chosen.request()
    with BoundaryClient.connect(url) as connection, _retries_said(reporter):
        # What is resampled again here must not have been rounded there.
        remote = RemoteModel(
            connection, connection.model(model), tta=chosen.tta, dtype="float32" if request.rescale else request.dtype
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
