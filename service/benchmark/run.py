"""A whole benchmark: everything is opened, then measured in turns, round after round."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, cast

from emboundary.model.description import Precision
from emboundary.service.benchmark.agreement import agreement, is_the_reference
from emboundary.service.benchmark.bare import SessionCase
from emboundary.service.benchmark.load import Load, ServiceCase
from emboundary.service.benchmark.machine import machine
from emboundary.service.benchmark.mapping import MapCase, Source, make_volume
from emboundary.service.benchmark.probes import Probes
from emboundary.service.benchmark.ratios import ratios
from emboundary.service.benchmark.records import Report, Round, Row
from emboundary.service.benchmark.request import BenchmarkRequest, Effort
from emboundary.service.benchmark.subjects import Case, Passes, Subject
from emboundary.service.engine import Device, OnnxEngine, find_model
from emboundary.service.engine.place import Place
from emboundary.service.errors import UsageError

Say = Callable[[str], None]


def run_benchmark(request: BenchmarkRequest, say: Say = lambda _: None) -> Report:
    """Measure what is asked for.

    Args:
        request: what is asked for.
        say: told what is being done.

    Raises:
        DeviceError: a device that was asked for and does not work.
        ModelUnavailableError: no such model, or a damaged one.
        UsageError: no model offers any of the precisions, or a volume that cannot be mapped.
        InputError: a volume that cannot be read.
    """
    device, reason = _device(request)
    say(f"on {reason}")
    effort = request.effort(device)
    subjects, refused = _subjects(request, device, effort, say)
    with TemporaryDirectory(prefix="emboundary-benchmark-") as scratch, ExitStack() as opened:
        rows = _measured(request, subjects, effort, Path(scratch), opened, say)
    compared = [subject for subject in subjects if not is_the_reference(subject)]
    for subject in compared:
        say(f"comparing {subject.name} {subject.engine.precision} with the CPU in float32")
    return Report(
        measured=date.today().isoformat(),
        machine=machine(),
        device=device,
        reason=reason,
        runtime=subjects[0].engine.runtime,
        rows=rows,
        ratios=ratios(rows),
        agreements=tuple(agreement(subject) for subject in compared),
        profiles=tuple(subject.profile for subject in subjects),
        refused=refused,
    )


def _device(request: BenchmarkRequest) -> tuple[Literal["cpu", "cuda"], str]:
    """Where models run, found out by the first one, and why."""
    entry = find_model(request.models[0], request.repository)
    first = request.precisions[0] if request.precisions else "float32"
    engine = OnnxEngine.open(entry, request.device, first, request.gpu)
    return cast(Literal["cpu", "cuda"], engine.device), engine.device_reason


def _subjects(
    request: BenchmarkRequest, device: Device, effort: Effort, say: Say
) -> tuple[list[Subject], tuple[str, ...]]:
    """Every model in every precision that it offers, and why others are left out."""
    found, refused = [], []
    side = request.tiles[0] if request.tiles else effort.tile
    for precision in request.precisions_on(device):
        for source in request.models:
            say(f"opening {source} {precision}")
            try:
                found.append(
                    Subject.open(source, device, precision, side, repository=request.repository, gpu=request.gpu)
                )
            except UsageError as error:
                refused.append(str(error))
    if not found:
        raise UsageError("; ".join(refused))
    return found, tuple(refused)


def _measured(
    request: BenchmarkRequest, subjects: Sequence[Subject], effort: Effort, scratch: Path, opened: ExitStack, say: Say
) -> tuple[Row, ...]:
    """All cases, in turns; each round begins with another one, and with the limits of the device."""
    precisions: tuple[Precision, ...] = tuple(dict.fromkeys(s.engine.precision for s in subjects))
    say("measuring what the device can do at best")
    probes = Probes(Place(subjects[0].engine.device), precisions, effort.sizes)
    cases = list(_cases(request, subjects, effort, _source(request, effort, scratch), scratch, opened))
    if effort.warm:
        for case in cases:
            say(f"warming up: {case.title}")
            case.warm()
    rounds: list[list[Round]] = [[] for _ in cases]
    for number in range(request.rounds):
        limits = probes.measure()
        first = number % len(cases)
        order = [*range(first, len(cases)), *range(first)]
        for i in order:
            rounds[i].append(cases[i].measure(limits))
            done = rounds[i][-1]
            say(f"round {number + 1} of {request.rounds}: {cases[i].title}: {done.pixels / done.seconds:,.0f} pixels/s")
    return tuple(case.row(tuple(found)) for case, found in zip(cases, rounds, strict=True))


def _source(request: BenchmarkRequest, effort: Effort, scratch: Path) -> Source:
    if request.volume is not None:
        return Source(request.volume)
    return make_volume(scratch / "volume.zarr", request.shape or effort.shape)


def _cases(
    request: BenchmarkRequest,
    subjects: Sequence[Subject],
    effort: Effort,
    source: Source,
    scratch: Path,
    opened: ExitStack,
) -> Iterator[Case]:
    every: tuple[Passes, ...] = (1, 8) if request.tta else (1,)
    if "session" in request.what:
        for tile in request.tiles or (effort.tile,):
            for batch in request.batches:
                for subject in subjects:
                    yield SessionCase(subject, tile, batch, effort.seconds)
    if "predict" in request.what:
        for wanted in request.tiles or (None,):
            for passes in every:
                for subject in subjects:
                    yield MapCase(subject, passes, source, scratch, wanted)
    if "service" in request.what:
        load = Load(request.clients, effort.image, effort.seconds)
        for passes in every:
            for subject in subjects:
                yield ServiceCase(subject, passes, source, load, opened)
