from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from emboundary.training.processes import shared_cores, side_by_side

CONSOLE = Console(stderr=True, quiet=True)


@pytest.mark.parametrize(
    ("cores", "jobs", "places"),
    [
        ({0, 1}, 2, [{0}, {1}]),
        ({4, 2, 9, 7, 5}, 2, [{2, 4}, {5, 7}]),
        ({0, 1}, 1, [{0, 1}]),
        ({3}, 2, [{3}, {3}]),
    ],
)
def test_processes_have_cores_of_their_own_where_there_are_enough(
    cores: set[int], jobs: int, places: list[set[int]]
) -> None:
    assert shared_cores(cores, jobs) == places


def test_results_come_in_the_order_of_the_items() -> None:
    # a function that other processes can be sent; {0} is the console that they have
    items = [f"{place} {{0.is_terminal}}" for place in range(5)]
    assert side_by_side(str.format, items, CONSOLE, jobs=2, threads=1) == [f"{place} False" for place in range(5)]


def test_one_job_works_here() -> None:
    assert side_by_side(lambda item, _: (item, os.getpid()), [4], CONSOLE, jobs=1, threads=None) == [(4, os.getpid())]


def test_no_jobs_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^jobs is 0; at least one process is needed$"):
        side_by_side(str.format, [], CONSOLE, jobs=0, threads=None)


BUSY = """
import os, signal, sys, time
from pathlib import Path
from rich.console import Console
from emboundary.training.processes import side_by_side

def work(folder, console):
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(600)

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background may be told to ignore it
    side_by_side(work, sys.argv[1:] * 6, Console(), jobs=2, threads=1)
"""


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """Where every process that has work leaves its number."""
    folder = tmp_path / "begun"
    folder.mkdir()
    return folder


@pytest.fixture
def parent(tmp_path: Path, begun: Path) -> Iterator[subprocess.Popen[str]]:
    """A program whose two processes are at work, with more to do."""
    script = tmp_path / "busy.py"
    script.write_text(BUSY)
    with subprocess.Popen([sys.executable, script, begun], stderr=subprocess.PIPE, text=True) as parent:
        try:
            until(lambda: len(workers(begun)) == 2)
            yield parent
        finally:
            parent.kill()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_no_process_outlives_the_one_that_began_it(
    parent: subprocess.Popen[str], begun: Path, how: signal.Signals
) -> None:
    parent.send_signal(how)
    until(lambda: not any(alive(process) for process in (parent.pid, *workers(begun))))
    assert len(workers(begun)) == 2  # nothing was begun that was still to do


def test_a_process_that_is_ended_from_outside_is_a_clear_failure(parent: subprocess.Popen[str], begun: Path) -> None:
    psutil.Process(workers(begun)[0]).kill()
    _, said = parent.communicate(timeout=60)
    assert "ProcessError: one of 2 processes ended before its work" in said.splitlines()[-1]
    until(lambda: not any(alive(process) for process in workers(begun)))


def workers(begun: Path) -> list[int]:
    return [int(path.name) for path in begun.iterdir()]


def until(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.05)


def alive(process: int) -> bool:
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
