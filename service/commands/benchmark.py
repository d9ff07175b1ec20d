"""``emboundary benchmark``: how fast models run here, and how near that is to what the device can do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeVar, get_args

import typer
from rich.console import Console

from emboundary.model.description import Precision
from emboundary.model.repository import ZOO
from emboundary.service.benchmark.findings import findings
from emboundary.service.benchmark.picture import draw
from emboundary.service.benchmark.records import Report, What
from emboundary.service.benchmark.request import BenchmarkRequest
from emboundary.service.benchmark.run import run_benchmark
from emboundary.service.benchmark.tables import tables
from emboundary.service.commands import options
from emboundary.service.engine import GpuOptions
from emboundary.service.errors import OutputError, UsageError
from emboundary.service.progress import create_reporter
from emboundary.service.run.request import parse_extents
from emboundary.service.settings import MEBIBYTE

T = TypeVar("T")
_DEFAULT = BenchmarkRequest()


def benchmark(
    *,
    what: Annotated[
        list[str] | None,
        typer.Option(metavar="session|predict|service", help="Repeatable.  [default: session and predict]"),
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Or path; repeatable.  [default: d4 and plain]")
    ] = None,
    device: options.DeviceChoice = "auto",
    precision: Annotated[
        list[str] | None,
        typer.Option(metavar="float32|float16|int8", help="Repeatable.  [default: float32, on a GPU float16 too]"),
    ] = None,
    tta: Annotated[bool, typer.Option("--tta", help="Measure the mean over 8 rotations and flips too.")] = False,
    tile: Annotated[
        list[int] | None, typer.Option(metavar="N", help="Side of images and tiles before the halo; repeatable.")
    ] = None,
    batch: Annotated[
        list[int] | None, typer.Option(metavar="N", help="Images in a run of a session; repeatable.  [default: 1]")
    ] = None,
    rounds: Annotated[int, typer.Option(help="How often everything is measured, in turns.")] = _DEFAULT.rounds,
    clients: Annotated[int, typer.Option(help="That send images to a service at a time.")] = _DEFAULT.clients,
    volume: Annotated[
        str | None, typer.Option(metavar="INPUT", help="What is mapped.  [default: one made of the bundled sample]")
    ] = None,
    shape: Annotated[
        str | None, typer.Option(metavar="Z,Y,X", help="Of the volume that is made.  [default: what suits the device]")
    ] = None,
    repository: Annotated[
        Path | None,
        typer.Option(
            exists=True, file_okay=False, help="Folder of NAME/VERSION/model.onnx.  [default: the bundled models]"
        ),
    ] = None,
    gpu_memory: options.GpuMemory = None,
    tensorrt: options.TensorRt = False,
    profile: Annotated[bool, typer.Option("--profile", help="Show which layers the time goes to.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="As small as can be: to see that it works.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Folder for NAME.json and NAME.png; created where missing."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the files in --out.  [default: cpu or cuda]")] = None,
    progress: options.ProgressStyle = "auto",
    as_json: options.AsJson = False,
) -> None:
    """Measure models on this machine beside what its device can do at best; about a minute."""
    request = BenchmarkRequest(
        what=_chosen("what", what, get_args(What)) or _DEFAULT.what,
        models=tuple(model or _DEFAULT.models),
        device=device,
        precisions=_chosen("precision", precision, get_args(Precision)),
        tta=tta,
        tiles=tuple(tile or ()),
        batches=tuple(batch or _DEFAULT.batches),
        rounds=rounds,
        clients=clients,
        volume=volume,
        shape=parse_extents("shape", shape),
        repository=repository or ZOO,
        gpu=GpuOptions(None if gpu_memory is None else gpu_memory * MEBIBYTE, tensorrt=tensorrt),
        quick=quick,
    )
    reporter = create_reporter(Console(stderr=True), progress)
    report = run_benchmark(request, reporter.say)
    for line in report.refused:
        reporter.warn(f"left out: {line}")
    if as_json:
        typer.echo(report.model_dump_json())
    else:
        _show(report, profile=profile)
    if out is not None:
        for path in _store(report, out, name or report.device):
            reporter.say(f"wrote {path}")


def _chosen(name: str, given: list[str] | None, known: tuple[T, ...]) -> tuple[T, ...]:
    """The known ones that were given, which the command line takes as any text."""
    for value in given or ():
        if value not in known:
            raise UsageError(f"{name} is {value!r}; it must be one of {', '.join(map(str, known))}")
    return tuple(one for one in known if one in (given or ()))


def _show(report: Report, *, profile: bool) -> None:
    console = Console()
    for table in tables(report, profiles=profile):
        console.print(table)
    for line in findings(report):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _store(report: Report, folder: Path, name: str) -> tuple[Path, Path]:
    """Write the record and the picture.

    Raises:
        OutputError: the folder cannot be written to.
    """
    record, picture = (folder / f"{name}.{suffix}" for suffix in ("json", "png"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        record.write_text(report.model_dump_json(indent=1) + "\n", encoding="utf-8")
        draw(report).save(picture)
    except OSError as error:
        raise OutputError(f"out is {folder}, which cannot be written to ({error.strerror}); give another") from error
    return record, picture
