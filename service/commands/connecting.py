"""What every command below ``emboundary client`` begins with: where the service is, and who asks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from stamina.instrumentation import RetryDetails, set_on_retry_hooks

from emboundary.service.client.address import KEY_VARIABLE
from emboundary.service.client.http import BoundaryClient
from emboundary.service.progress import Reporter

Url = Annotated[str, typer.Option(envvar="EMBOUNDARY_URL", help="Where the service is, e.g. http://127.0.0.1:8000.")]
ApiKey = Annotated[
    str | None,
    typer.Option(
        envvar=KEY_VARIABLE, help="Key of a service that asks for one; on the command line others can see it."
    ),
]
Model = Annotated[str | None, typer.Option(help="Name of a served model.  [default: the service's]")]
Version = Annotated[str | None, typer.Option(help="Version of the model.  [default: its newest]")]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="As `client submit` and `client jobs` show it.")]


@contextmanager
def connected(url: str, api_key: str | None, reporter: Reporter) -> Iterator[BoundaryClient]:
    """A client that says why nothing moves while the service is busy or out of reach."""

    def say(details: RetryDetails) -> None:
        reporter.say(f"{details.caused_by}; trying again in {details.wait_for:.1f} s")

    set_on_retry_hooks([say])
    try:
        with BoundaryClient.connect(url, api_key=api_key) as client:
            yield client
    finally:
        set_on_retry_hooks(None)
