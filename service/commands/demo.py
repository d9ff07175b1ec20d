"""``emboundary demo``: the bundled models on the bundled sample, from a service through its client to a picture."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from emboundary.service.client.http import BoundaryClient
from emboundary.service.demo.background import background_service
from emboundary.service.demo.contest import ENTRANTS, SAMPLE, Result, draw, run_entrant
from emboundary.service.errors import OutputError
from emboundary.service.progress import create_reporter

PICTURE = "overlay.png"


def demo(
    output: Annotated[Path, typer.Option(help="Folder for the maps and the picture; created where missing.")] = Path(
        "demo"
    ),
) -> None:
    """Map the bundled sample with the bundled models, and compare one exact pass with eight averaged ones."""
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"folder {output} cannot be made ({error.strerror}); give another --output") from error
    reporter = create_reporter(Console(stderr=True))
    reporter.say("starting the service...")
    with _terminate_as_interrupt(), background_service() as url, BoundaryClient.connect(url) as client:
        reporter.say(f"the service is ready at {url}")
        results = [run_entrant(client, entrant, output, reporter) for entrant in ENTRANTS]
    picture = output / PICTURE
    draw(results).save(picture)
    console = Console()
    console.print(_table(results))
    for line in _conclusions(results, picture):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    """Let SIGTERM unwind as Ctrl-C does, so that the service does not outlive this process."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _table(results: Sequence[Result]) -> Table:
    table = Table(title="the bundled sample: sections that no model was trained on", title_justify="left")
    table.add_column("model")
    for title in ("passes", "seconds", "voxels/s", "ROC AUC", "average precision"):
        table.add_column(title, justify="right")
    for result in results:
        table.add_row(
            result.entrant.model,
            str(result.entrant.passes),
            f"{result.seconds:.2f}",
            f"{result.voxels_per_second:,.0f}",
            f"{result.roc_auc:.5f}",
            f"{result.average_precision:.4f}",
        )
    return table


def _conclusions(results: Sequence[Result], picture: Path) -> Iterator[str]:
    one, eight = results
    yield f"{one.entrant.title}, took {one.seconds / eight.seconds:.2f} of the time of {eight.entrant.title}."
    yield f"picture: {picture}"
    yield f"maps:    {', '.join(str(result.target) for result in results)}"
    yield f"licence of the sample: {SAMPLE / 'NOTICE.md'}"
