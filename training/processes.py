"""Several pieces of work side by side, each in a process of its own.

On CPUs, processes with one thread each get more done than one process with all threads.  Each keeps to cores of its
own, or ONNX Runtime would start a thread for every core in all of them.  Whatever ends the process that began them,
a kill too, ends them.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.queues import Queue
from typing import TypeVar

import torch
from rich.console import Console

from emboundary.service.errors import EmboundaryError

Item = TypeVar("Item")
Result = TypeVar("Result")
Cores = frozenset[int]


class ProcessError(EmboundaryError):
    """A process that ended before its work did."""


def side_by_side(
    work: Callable[[Item, Console], Result],
    items: Sequence[Item],
    console: Console,
    *,
    jobs: int,
    threads: int | None,
) -> list[Result]:
    """Results of ``work(item, console)`` in the order of the items, ``jobs`` of them at a time.

    Args:
        work: and the items must be what other processes can be sent; with one job nothing is sent.
        items: begun in their order.
        console: for one job; several have consoles of their own, on stderr.
        jobs: processes.
        threads: of torch in each; None: as many as it has cores, which the processes share evenly.

    Raises:
        ValueError: fewer than one job.
        ProcessError: a process was ended from outside.
        Exception: the first failure of any, which ends all; what has not stored its result by then must be begun again.
    """
    if jobs < 1:
        raise ValueError(f"jobs is {jobs}; at least one process is needed")
    if jobs == 1:
        return [work(item, console) for item in items]
    spawning = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    places: Queue[Cores] = spawning.Queue()
    for cores in shared_cores(os.sched_getaffinity(0), jobs):
        places.put(cores)
    lifeline, held = spawning.Pipe(duplex=False)
    with held, lifeline, ProcessPoolExecutor(jobs, spawning, _settle, (places, threads, lifeline)) as pool:
        running = [pool.submit(_apart, work, item) for item in items]
        try:
            for done in as_completed(running):
                done.result()
        except BrokenProcessPool as error:
            raise ProcessError(
                f"one of {jobs} processes ended before its work, as one does that needs too much memory; give fewer "
                "--jobs, and begin again: what is stored is not done twice"
            ) from error
        except BaseException:
            held.close()  # or the pool would wait for what it has handed out already
            raise
    return [future.result() for future in running]


def shared_cores(cores: set[int], jobs: int) -> list[Cores]:
    """Disjoint sets of cores, one for each process; all cores for each, where there are fewer cores than processes."""
    share = len(cores) // jobs
    if not share:
        return [Cores(cores)] * jobs
    ordered = sorted(cores)
    return [Cores(ordered[i * share : (i + 1) * share]) for i in range(jobs)]


def _settle(places: Queue[Cores], threads: int | None, lifeline: Connection) -> None:
    settle(places.get(), threads, lifeline)


def settle(cores: Cores, threads: int | None, lifeline: Connection) -> None:
    """Make this process one of several: its own cores, no Ctrl-C, and an end with the one that began it.

    Args:
        cores: its own.
        threads: of torch; None: as many as it has cores.
        lifeline: whose other end the process that began this one holds.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that began this one
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()
    os.sched_setaffinity(0, cores)
    torch.set_num_threads(threads or len(cores))


def console_of_lines() -> Console:
    """What one of several processes speaks on: lines, not bars, for those would overwrite each other."""
    return Console(stderr=True, force_terminal=False, highlight=False, markup=False, soft_wrap=True)


def _end_with(lifeline: Connection) -> None:
    """Wait until the other end is closed, by the process that began this one or by its end, and end."""
    with suppress(EOFError, OSError):
        lifeline.recv()
    os._exit(1)  # what is stored, is stored whole; there is nobody to give a result to


def _apart(work: Callable[[Item, Console], Result], item: Item) -> Result:
    return work(item, console_of_lines())
