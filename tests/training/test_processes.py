from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
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
import os, sys, time
from pathlib import Path
from rich.console import Console
from emboundary.training.processes import side_by_side

def work(folder, console):
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(600)

if __name__ == "__main__":
    side_by_side(work, sys.argv[1:] * 2, Console(), jobs=2, threads=1)
"""


def test_a_kill_leaves_no_process_behind(tmp_path: Path) -> None:
    script, folder = tmp_path / "busy.py", tmp_path / "begun"
    script.write_text(BUSY)
    folder.mkdir()
    with subprocess.Popen([sys.executable, str(script), str(folder)]) as parent:
        try:
            until(lambda: len(list(folder.iterdir())) == 2)
        finally:
            parent.kill()
    until(lambda: not any(alive(int(path.name)) for path in folder.iterdir()))


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
