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
from emboundary.service.commands.summary import show_summary
from emboundary.service.intensity import Intensity
from emboundary.service.prediction import MapRequest, make_map
from emboundary.service.progress import Reporter, create_reporter


def create_client_cli() -> typer.Typer:
    """The commands below ``emboundary client``."""
    app = typer.Typer(help="Ask a service elsewhere.", rich_markup_mode=None)
    app.callback()(_client)  # keeps "predict" a command of its own while it is the only one
    app.command()(predict)
    return app


def _client() -> None:
    """Ask a service elsewhere."""


def predict(
    source: options.Source,
    target: options.Target,
    url: Annotated[str, typer.Option(help="Where the service is, e.g. http://127.0.0.1:8000.")],
    model: Annotated[str | None, typer.Option(help="Name of a served model.  [default: the service's]")] = None,
    tta: options.Tta = False,
    roi: options.Roi = None,
    tile: Annotated[
        int | None, typer.Option(help="Side of a block in voxels.  [default: what suits the service's own tiles]")
    ] = None,
    dtype: options.OutputDtype = "uint8",
    intensity: options.MeanStd = None,
    axes: options.Axes = None,
    overwrite: options.Overwrite = False,
    as_json: options.AsJson = False,
) -> None:
    """Map a volume that lies here with a network that runs there; gives the same map as `emboundary predict`."""
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
    with BoundaryClient.connect(url) as client, _retries_said(reporter):
        remote = RemoteModel(client, client.model(model), tta=tta, dtype=dtype)
        reporter.say(f"{remote.model.name} {remote.model.version} at {client.url}")
        report = make_map(request, remote, reporter)
    show_summary(
        report,
        target,
        model=remote.model.name,
        device=str(remote.device),
        precision="float32",
        reporter=reporter,
        as_json=as_json,
    )


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
