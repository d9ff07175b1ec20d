from __future__ import annotations

import subprocess
import sys

import pytest

from emboundary.service.run.heap import keep_tight

# Threads that each free large buffers and keep a small one, as those that decode chunks do.
PROGRAM = """
import sys, threading
from emboundary.service.run.heap import keep_tight
if sys.argv[1] == "tight":
    keep_tight()
kept = []
def work():
    for size in range(1 << 20, 24 << 20, 1 << 20):
        buffer = bytearray(b"x") * size
        kept.append(bytearray(b"x") * 100_000)
        del buffer
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
with open("/proc/self/status") as file:
    print(next(line.split()[1] for line in file if line.startswith("VmRSS")))
"""


def resident_kib(how: str) -> int:
    return int(subprocess.check_output([sys.executable, "-c", PROGRAM, how]))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc keeps heaps this way on Linux only")
def test_freed_buffers_go_back_to_the_system() -> None:
    loose, tight = resident_kib("loose"), resident_kib("tight")
    assert tight < 0.7 * loose, (tight, loose)


def test_it_may_be_asked_for_again() -> None:
    keep_tight()
    keep_tight()
