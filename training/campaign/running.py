"""A campaign's processes: each does one piece, then the next free one takes what is due."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from rich.console import Console

from emboundary.service.errors import EmboundaryError, OutputError
from emboundary.training.campaign.plan import Campaign, Piece, load_campaign
from emboundary.training.campaign.working import Post, work
from emboundary.training.processes import ProcessError, shared_cores

# Of the ten seconds in which a campaign ends: a process that does not get to its next step by then loses the steps
# since its last checkpoint.
_PATIENCE = 8.0
_LOCK = "lock"


class BusyError(EmboundaryError):
    """A campaign whose folder another process works in."""


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep every other process out of a campaign's folder; the lock ends with this process, however it ends.

    Raises:
        BusyError: another one has it.
        OutputError: the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / _LOCK).open("w")
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error.strerror}; give another --runs") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BusyError(
                f"{folder} is being trained in by another process; stop that one (SIGTERM), or give another --runs"
            ) from None
        yield


def run_campaign(
    path: Path,
    folder: Path,
    data: Path,
    console: Console,
    *,
    starts: Path | None,
    device: str,
    jobs: int,
    threads: int | None,
) -> None:
    """Train until every model has reached the goal and is annealed, or until SIGTERM or Ctrl-C.

    Args:
        path: the campaign's file.
        folder: of its state.
        data: of the volumes.
        console: told what is begun.
        starts: folder of weights for a machine without a state.
        device: of torch.
        jobs: processes; each model is trained by one at a time.
        threads: of each.

    Raises:
        ConfigError: see ``load_campaign``.
        BusyError: another process has the folder.
        ProcessError: a process failed or was ended from outside.
    """
    with alone(folder), _stoppable() as stop:
        spawning = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
        lifeline, held = spawning.Pipe(duplex=False)
        with held, lifeline:
            places = [
                Post(data, starts, device, cores, threads) for cores in shared_cores(os.sched_getaffinity(0), jobs)
            ]

            def begun(piece: Piece, post: Post) -> SpawnProcess:
                process = spawning.Process(target=work, args=(piece, post, lifeline))
                process.start()
                return process

            _keep_busy(lambda: load_campaign(path, folder), places, begun, console, stop)


@contextmanager
def _stoppable() -> Iterator[Connection]:
    """SIGTERM and Ctrl-C, as a connection that can be waited for: it becomes readable."""
    readable, writable = multiprocessing.Pipe(duplex=False)
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            before[number] = signal.signal(number, lambda *_: writable.send(None))
    try:
        with readable, writable:
            yield readable
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _keep_busy(
    campaign: Callable[[], Campaign],
    places: list[Post],
    begun: Callable[[Piece, Post], SpawnProcess],
    console: Console,
    stop: Connection,
) -> None:
    running: dict[int, tuple[SpawnProcess, Piece, Post]] = {}
    free = list(places)
    try:
        while not stop.poll():
            while free:
                # read anew each time: somebody may have asked for a branch
                piece = campaign().next_piece({p.contestant.name for _, p, _ in running.values()})
                if piece is None:
                    break
                post = free.pop(0)
                process = begun(piece, post)
                running[process.sentinel] = (process, piece, post)
            if not running:
                console.print("every model has reached the goal and is annealed")
                return
            for ready in wait([*running, stop]):
                if ready in running:
                    process, piece, post = running.pop(ready)
                    process.join()
                    _require_done(process, piece)
                    free.append(post)
        console.print("stopped; the same command goes on from here")
    finally:
        _end([process for process, _, _ in running.values()])


def _require_done(process: SpawnProcess, piece: Piece) -> None:
    if process.exitcode:
        how = f"was ended by signal {-process.exitcode}" if process.exitcode < 0 else "failed, as it says above"
        raise ProcessError(
            f"the process that trained {piece.contestant.name} {how}; begin again: it goes on from its last checkpoint"
        )


def _end(processes: list[SpawnProcess]) -> None:
    """Stop at the next step; whoever does not get there in time is killed."""
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + _PATIENCE
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
        if process.is_alive():
            with suppress(ProcessLookupError):
                process.kill()
            process.join()
