"""``emboundary client submit | jobs | events | cancel``: maps of volumes that the service can see."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from emboundary.service.client.http import BoundaryClient
from emboundary.service.commands import options
from emboundary.service.commands.connecting import ApiKey, JobId, Model, Url, Version, connected
from emboundary.service.commands.following import refuse_unfinished, show
from emboundary.service.commands.map_options import MapOptions, with_map_options
from emboundary.service.errors import InterruptedRunError
from emboundary.service.jobs.schemas import Job, JobState
from emboundary.service.progress import Reporter, create_reporter


@with_map_options
def submit(
    *,
    url: Url,
    api_key: ApiKey = None,
    model: Model = None,
    version: Version = None,
    chosen: MapOptions,
    follow: Annotated[bool, typer.Option("--follow", help="Show progress, and end as the job ends.")] = False,
    progress: options.ProgressStyle = "auto",
    as_json: options.AsJson = False,
) -> None:
    """Have a volume mapped that the service can see: INPUT and OUTPUT are paths there, or URLs."""
    reporter = create_reporter(Console(stderr=True), progress)
    submission = chosen.submission(model, version)
    with connected(url, api_key, reporter) as client:
        job = client.submit(submission)
        if follow:
            job = _followed(client, job.id, reporter)
    _end(job, reporter, as_json=as_json, shown=follow)


def jobs(
    url: Url,
    api_key: ApiKey = None,
    state: Annotated[JobState | None, typer.Option(help="Only jobs in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="So many at most.")] = 20,
    as_json: options.AsJson = False,
) -> None:
    """List the service's jobs, the newest first."""
    reporter = create_reporter(Console(stderr=True))
    with connected(url, api_key, reporter) as client:
        page = client.jobs(states=() if state is None else (state,), limit=limit)
    if as_json:
        typer.echo(page.model_dump_json())
        return
    console = Console()
    console.print(_table(page.jobs))
    if page.next is not None:
        reporter.say("there are older ones: --limit shows more")


def events(
    job: JobId,
    url: Url,
    api_key: ApiKey = None,
    progress: options.ProgressStyle = "auto",
    as_json: options.AsJson = False,
) -> None:
    """Follow a job until it is over; exit code 1 if it ends without its map."""
    reporter = create_reporter(Console(stderr=True), progress)
    with connected(url, api_key, reporter) as client:
        ended = _followed(client, job, reporter)
    _end(ended, reporter, as_json=as_json, shown=True)


def cancel(job: JobId, url: Url, api_key: ApiKey = None, as_json: options.AsJson = False) -> None:
    """Stop a job at its next piece; what it has stored is kept."""
    reporter = create_reporter(Console(stderr=True))
    with connected(url, api_key, reporter) as client:
        cancelled = client.cancel(job)
    if as_json:
        typer.echo(cancelled.model_dump_json())
    else:
        stopping = "" if cancelled.over else ", and will stop at its next piece"
        reporter.say(f"job {cancelled.id} is {cancelled.state}{stopping}")


def _followed(client: BoundaryClient, identity: str, reporter: Reporter) -> Job:
    try:
        return show(client.follow(identity), reporter)
    except KeyboardInterrupt:
        raise InterruptedRunError(
            f"interrupted; job {identity} goes on: `emboundary client events {identity} --url {client.url}` follows "
            "it, `client cancel` stops it"
        ) from None


def _end(job: Job, reporter: Reporter, *, as_json: bool, shown: bool) -> None:
    """Say how a job ended, or (``shown``: nobody has followed it) that it has begun."""
    if as_json:
        typer.echo(job.model_dump_json())
    elif not shown:
        typer.echo(job.id)
    elif job.result is not None:
        reporter.say(f"{job.request.output}: {job.result.voxels} voxels in {job.result.seconds:.1f} s")
    if shown:
        refuse_unfinished(job)


def _table(jobs: tuple[Job, ...]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    # What is to be typed again is never cut; what is long takes several lines.
    for title, width in (("job", 16), ("state", 9), ("submitted", 16)):
        table.add_column(title, no_wrap=True, min_width=width)
    for title in ("by", "output", ""):
        table.add_column(title, overflow="fold")
    for job in jobs:
        done = ""
        if job.progress is not None and job.progress.voxels:
            done = f"{job.progress.phase} {job.progress.voxels_done / job.progress.voxels:.0%}"
        cells = (
            job.id,
            job.state,
            f"{job.created_at:%Y-%m-%d %H:%M}",
            job.client,
            job.request.output,
            job.error or ("" if job.over else done),
        )
        table.add_row(*(Text(cell) for cell in cells))  # what others have typed is no markup
    return table
