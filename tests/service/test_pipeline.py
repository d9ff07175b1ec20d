from __future__ import annotations

import signal
import threading
import time
import tracemalloc
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from emboundary.model.geometry import BlockGrid, Box
from emboundary.service.errors import DeviceError, InputError, OutputError
from emboundary.service.run.channel import Channel, ClosedError
from emboundary.service.run.pipeline import IN_FLIGHT, Pipeline, Tally, Waiting
from emboundary.service.run.tiling import split

THREADS = {f"emboundary-{stage}" for stage in ("read", "compute", "write", "record")}


class Fake:
    """Work in memory: the block of number n holds n; parts of it can be told to wait or to fail."""

    def __init__(self, blocks: int = 20, side: int = 8) -> None:
        self.grid = BlockGrid(Box.of_shape((blocks, side, side)), (1, side, side))
        self.events: list[tuple[str, Any]] = []
        self.stored: dict[int, NDArray[Any]] = {}
        self.recorded: list[int] = []
        self.lost: dict[int, str] = {}
        self.gate = threading.Event()
        self.gate.set()
        self._lock = threading.Lock()

    def note(self, what: str, box: Box) -> None:
        with self._lock:
            self.events.append((what, box.start[0]))

    def count(self, what: str) -> int:
        return sum(event == what for event, _ in self.events)

    def run_all(self, **options: Any) -> Tally:
        return Pipeline(self, waiting=Waiting(), **options).run(enumerate(self.grid))

    def tiles(self, block: Box) -> Iterable[Box]:
        _, y, x = block.shape
        return split(block, (1, y // 2, x))

    def load(self, tile: Box) -> Box:
        self.note("load", tile)
        return tile

    def run(self, loaded: Box) -> Iterator[tuple[Box, NDArray[Any]]]:
        self.note("run", loaded)
        yield loaded, np.full(loaded.shape, loaded.start[0] % 256, np.uint8)

    def skips(self, loaded: Box) -> bool:
        return loaded.start[0] % 5 == 0

    def empty(self, block: Box) -> NDArray[Any]:
        return np.zeros(block.shape, np.uint8)

    def write(self, block: Box, encoded: NDArray[Any]) -> None:
        self.gate.wait()
        self.note("write", block)
        self.stored[block.start[0]] = encoded

    def flush(self) -> None:
        self.events.append(("flush", set(self.stored)))

    def done(self, numbers: list[int]) -> None:
        flushed = next(found for what, found in reversed(self.events) if what == "flush")
        assert set(numbers) <= flushed  # law 4
        self.recorded += numbers

    def missing(self, number: int, block: Box, reason: str) -> None:
        assert block.start[0] == number
        self.lost[number] = reason


def settled(work: Fake) -> None:
    """Wait until nothing more happens."""
    before = -1
    while len(work.events) != before:
        before = len(work.events)
        time.sleep(0.05)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_every_block_is_stored_then_flushed_then_recorded_once(workers: int) -> None:
    work, advanced = Fake(), []
    assert work.run_all(workers=workers, advance=advanced.append) == Tally(stored=20, skipped=4)
    assert sorted(work.recorded) == list(range(20))
    assert all((block == number).all() for number, block in work.stored.items())
    assert sum(advanced) == 20 * 64
    assert work.lost == {}


def test_no_blocks_are_no_work() -> None:
    work = Fake()
    assert Pipeline(work, waiting=Waiting()).run([]) == Tally(0, 0)
    assert work.events == []


def test_everything_waits_for_a_slow_disk() -> None:
    work = Fake(50)
    work.gate.clear()
    run = threading.Thread(target=work.run_all)
    run.start()
    settled(work)
    begun = len({number for what, number in work.events if what == "load"})
    work.gate.set()
    run.join()
    assert begun <= IN_FLIGHT
    assert sorted(work.recorded) == list(range(50))


def test_memory_does_not_grow_with_the_volume() -> None:
    def peak(blocks: int) -> int:
        work = Fake(blocks, side=256)
        work.write = lambda *_: None  # type: ignore[method-assign]
        work.flush = work.done = lambda *_: None  # type: ignore[method-assign, assignment]
        work.note = lambda *_: None  # type: ignore[method-assign]
        tracemalloc.start()
        try:
            work.run_all()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(4)
    assert peak(400) < IN_FLIGHT * 2 * 256 * 256


def test_reading_and_computing_overlap() -> None:
    work = Fake()
    together = threading.Barrier(2, timeout=10)

    def load(tile: Box) -> Box:
        if tile.start[0] == 3 and tile.start[1] == 0:
            together.wait()
        return tile

    def run(loaded: Box) -> Iterator[tuple[Box, NDArray[Any]]]:
        if loaded.start[0] == 1 and loaded.start[1] == 4:
            together.wait()  # breaks unless a later tile is being read meanwhile
        yield loaded, np.zeros(loaded.shape, np.uint8)

    work.load, work.run = load, run  # type: ignore[method-assign]
    assert work.run_all().stored == 20


@pytest.mark.parametrize("workers", [1, 3])
def test_a_block_that_cannot_be_read_is_tried_again_then_missing_and_the_run_goes_on(
    workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emboundary.service.run.pipeline._SECONDS_BEFORE_RETRIES", (0.0, 0.0))
    work = Fake()
    tries: list[int] = []

    def load(tile: Box) -> Box:
        if tile.start[0] == 7 and tile.start[1] == 4:
            tries.append(7)
            raise InputError("chunk 7 is damaged")
        if tile.start[0] == 9 and tile.start[1] == 0 and tries.count(9) < 2:
            tries.append(9)
            raise InputError("the network was away for a moment")
        return tile

    work.load = load  # type: ignore[method-assign]
    assert work.run_all(workers=workers).stored == 19
    assert work.lost == {7: "chunk 7 is damaged"}
    assert (tries.count(7), tries.count(9)) == (3, 2)
    assert sorted(work.recorded) == [n for n in range(20) if n != 7]
    assert 7 not in work.stored


def test_an_input_of_which_nothing_can_be_read_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emboundary.service.run.pipeline._SECONDS_BEFORE_RETRIES", ())
    work = Fake(5000)

    def load(_: Box) -> Box:
        raise InputError("gone")

    work.load = load  # type: ignore[method-assign]
    with pytest.raises(InputError, match="none of the first 64 blocks can be read: gone"):
        work.run_all()
    assert work.recorded == []


@pytest.mark.parametrize(
    ("stage", "error"),
    [
        ("load", ZeroDivisionError("a defect")),
        ("run", DeviceError("out of memory")),
        ("write", OutputError("no space left")),
        ("flush", OutputError("no space left")),
        ("done", OutputError("no space left")),
    ],
)
@pytest.mark.parametrize("at", [0, 3, 19])
def test_the_first_error_ends_the_run_and_is_raised(stage: str, error: Exception, at: int) -> None:
    work = Fake()
    before = getattr(work, stage)
    calls = iter(range(1000))

    def fail(*arguments: Any) -> Any:
        if next(calls) == at:
            raise error
        return before(*arguments)

    setattr(work, stage, fail)
    if stage in ("flush", "done") and at == 19:
        return  # blocks are recorded together: there may be fewer calls
    if stage in ("flush", "done"):
        at = 0
    began = time.monotonic()
    with pytest.raises(type(error), match=str(error)):
        work.run_all(workers=2)
    assert time.monotonic() - began < 5
    assert not [thread for thread in threading.enumerate() if thread.name in THREADS]
    assert set(work.recorded) <= set(work.stored)


def test_an_interrupt_stores_what_is_whole_and_drops_the_rest() -> None:
    work = Fake(1000)
    signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))

    def run(loaded: Box) -> Iterator[tuple[Box, NDArray[Any]]]:
        time.sleep(0.005)
        yield loaded, np.full(loaded.shape, loaded.start[0] % 256, np.uint8)

    work.run = run  # type: ignore[method-assign]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(KeyboardInterrupt):
            work.run_all()
    finally:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, before)
    assert 0 < len(work.recorded) < 1000
    assert set(work.recorded) == set(work.stored)
    assert not [thread for thread in threading.enumerate() if thread.name in THREADS]


def test_the_shares_of_waiting_add_up() -> None:
    waiting = Waiting()
    assert waiting.shares().compute == 0
    for name, seconds in (("input", 1.0), ("compute", 2.0), ("output", 1.0)):
        waiting.add(name, seconds)
    shares = waiting.shares()
    assert (shares.input, shares.compute, shares.output) == (0.25, 0.5, 0.25)


def test_a_slow_input_shows_as_waiting_for_input() -> None:
    work, waiting = Fake(10), Waiting()

    def load(tile: Box) -> Box:
        time.sleep(0.01)
        return tile

    work.load = load  # type: ignore[method-assign]
    Pipeline(work, waiting=waiting).run(enumerate(work.grid))
    assert waiting.shares().input > 0.5


def test_a_closed_channel_gives_what_it_holds_and_takes_nothing() -> None:
    channel: Channel[int] = Channel(3)
    channel.put(1)
    channel.put(2)
    channel.close()
    with pytest.raises(ClosedError):
        channel.put(3)
    assert list(channel) == [1, 2]


def test_an_abandoned_channel_wakes_both_ends() -> None:
    full: Channel[int] = Channel(1)
    empty: Channel[int] = Channel(1)
    full.put(0)
    woken: list[str] = []

    def wait(name: str, step: Any) -> None:
        try:
            step()
        except ClosedError:
            woken.append(name)

    threads = [
        threading.Thread(target=wait, args=("put", lambda: full.put(1))),
        threading.Thread(target=wait, args=("get", empty.get)),
    ]
    for thread in threads:
        thread.start()
    full.abandon()
    empty.abandon()
    for thread in threads:
        thread.join(5)
    assert sorted(woken) == ["get", "put"]
