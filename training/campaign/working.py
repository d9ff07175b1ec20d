"""What one process of a campaign does: one piece, until it is done or somebody stops it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from rich.console import Console

from emboundary.model.weights import load_notes, load_segmenter
from emboundary.service.errors import EmboundaryError
from emboundary.training.campaign.plan import Contestant, Piece
from emboundary.training.crops.data import training_volumes
from emboundary.training.learning.checkpoint import branch_off, save_checkpoint
from emboundary.training.learning.loop import CHECKPOINT, StepReport, Stopped
from emboundary.training.learning.runs import fit
from emboundary.training.learning.state import new_state
from emboundary.training.learning.train import Segmentation, train
from emboundary.training.processes import Cores, console_of_lines, settle

STEP_KEY = "emboundary.step"
_CHECKPOINT_EVERY = 100
_LINE_EVERY = 100

_FAILED = 1


@dataclass(frozen=True)
class Post:
    """What a process works with.

    Attributes:
        data: folder of the volumes.
        starts: folder of weights to begin with on a machine without a state, ``NAME.safetensors``; None: random ones.
        cores: its own.
        threads: of torch; None: as many as it has cores.
    """

    data: Path
    starts: Path | None
    device: str
    cores: Cores
    threads: int | None


def work(piece: Piece, post: Post, lifeline: Connection) -> None:
    """Do a piece of work in this process; SIGTERM stops it behind its next step, with a checkpoint.

    Ends the process with 0 whether it is done or stopped, with 1, after one line on stderr, where it failed.
    """
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    settle(post.cores, post.threads, lifeline)
    console = console_of_lines()
    try:
        do(piece, post, console, stop.is_set)
    except Stopped:
        pass
    except EmboundaryError as error:
        console.print(f"{piece.contestant.name}: error: {error}")
        raise SystemExit(_FAILED) from error


def do(piece: Piece, post: Post, console: Console, stop: Callable[[], bool]) -> None:
    """Do a piece of work.

    Raises:
        Stopped: ``stop`` said so; a checkpoint holds all that was done.
        EmboundaryError: as ``fit``.
    """
    contestant, branch = piece.contestant, piece.branch
    device = torch.device(post.device)
    report = _lines(contestant, console, "annealing" if branch else "trained")
    if branch is None:
        assert piece.until is not None
        begin(contestant, post.starts, device)
        train(
            contestant.config,
            training_volumes(post.data, contestant.config),
            contestant.trunk,
            device=device,
            checkpoint_every=_CHECKPOINT_EVERY,
            report=report,
            stop_after=piece.until,
            stop=stop,
        )
        return
    config, folder = contestant.config_of(branch), contestant.folder_of(branch)
    if not (folder / CHECKPOINT).exists():
        branch_off(contestant.trunk / CHECKPOINT, folder / CHECKPOINT, config)
    fit(config, post.data, folder, device=device, checkpoint_every=_CHECKPOINT_EVERY, report=report, stop=stop)
    console.print(f"{contestant.name}: annealed after {_megapixels(branch.steps, contestant)}, in {folder}")


def begin(contestant: Contestant, starts: Path | None, device: torch.device) -> None:
    """Where a model has no state yet, begin with the weights that came with the project, at the step that they are of.

    The optimiser begins anew: its moments are those of one machine.

    Raises:
        WeightsError: weights that cannot be read.
        OutputError: the checkpoint cannot be written.
    """
    checkpoint = contestant.trunk / CHECKPOINT
    given = None if starts is None else starts / f"{contestant.name}.safetensors"
    if checkpoint.exists() or given is None or not given.exists():
        return
    network = load_segmenter(given)
    state = new_state(Segmentation(contestant.config, ()), device)
    for fresh in (state.network, state.average):
        fresh.load_state_dict(network.state_dict())
    state.step = int(load_notes(given)[STEP_KEY])
    save_checkpoint(checkpoint, state, contestant.config)


def _lines(contestant: Contestant, console: Console, what: str) -> Callable[[StepReport], None]:
    def line(report: StepReport) -> None:
        if report.step % _LINE_EVERY == 0 or report.step == report.steps:
            console.print(
                f"{contestant.name}: {what}, step {report.step:,} of {report.steps:,}, "
                f"{_megapixels(report.step, contestant)}, loss {report.recent_loss:.4f}, "
                f"{report.pixels_per_second / 1e3:.0f} thousand pixels/s"
            )

    return line


def _megapixels(steps: int, contestant: Contestant) -> str:
    return f"{steps * contestant.pixels_per_step / 1e6:,.0f} million pixels"
