"""Read ahead, compute, store and record at the same time, in memory that does not depend on the volume's size.

        readers --tiles--> workers --blocks--> writer --stored--> recorder
        load               run, encode         write              flush, then mark as done

Every arrow is a bounded channel.  A block is marked as done only after its bytes are stored and flushed (law 4);
the recorder flushes for all blocks that have been written meanwhile at once.  An interrupt, or the first error that
is no fault of the input, stops readers and workers; blocks that are whole by then are still stored and marked, the
others are dropped, and a later run computes them again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from numpy.typing import NDArray

from emboundary.model.geometry import Box
from emboundary.service.errors import InputError
from emboundary.service.pace import Shares
from emboundary.service.run.channel import Channel, ClosedError

_READERS = 2
_TILES_AHEAD = 2
_WRITTEN = 2
# Blocks that a kill can undo with one worker: one each being computed, whole, and being stored; those written, as
# many again that are being recorded, and the one that the recorder took first.
IN_FLIGHT = 3 + 2 * _WRITTEN + 1
# Storage that fails for a moment gets a second and a third chance, after so many seconds.
_SECONDS_BEFORE_RETRIES = (0.1, 0.5)
# When nothing at all can be read there is no use in going through a whole volume.
_HOPELESS = 64


class Work(Protocol):
    """What is done for every block; each method is called from threads of its own."""

    def tiles(self, block: Box) -> Iterable[Box]:
        """Cut a block into what is loaded at once."""
        ...

    def load(self, tile: Box) -> Any:
        """Read what a tile needs; an ``InputError`` makes its block a missing one."""
        ...

    def run(self, loaded: Any) -> Iterator[tuple[Box, NDArray[Any]]]:
        """Encoded voxels of a tile, piece by piece."""
        ...

    def skips(self, loaded: Any) -> bool:
        """Whether the tile costs nothing."""
        ...

    def empty(self, block: Box) -> NDArray[Any]:
        """Memory for a block's encoded voxels."""
        ...

    def write(self, block: Box, encoded: NDArray[Any]) -> None:
        """Store a block."""
        ...

    def flush(self) -> None:
        """Return when all that was stored is safe."""
        ...

    def done(self, numbers: list[int]) -> None:
        """Record blocks whose bytes are safe."""
        ...

    def missing(self, number: int, block: Box, reason: str) -> None:
        """Record a block that cannot be read."""
        ...


@dataclass
class Waiting:
    """Where the workers' time went so far, in seconds, summed over workers.

    Attributes:
        input: waiting for tiles that are being read.
        compute: computing.
        output: waiting for blocks that are being stored.
    """

    input: float = 0.0
    compute: float = 0.0
    output: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, name: str, seconds: float) -> None:
        """Count seconds under one of the three names."""
        with self._lock:
            setattr(self, name, getattr(self, name) + seconds)

    def shares(self) -> Shares:
        """The three as fractions of their sum."""
        total = self.input + self.compute + self.output or 1.0
        return Shares(self.input / total, self.compute / total, self.output / total)


class _Clock:
    """Splits one worker's time into the three kinds of waiting."""

    def __init__(self, waiting: Waiting) -> None:
        self._waiting = waiting
        self._last = time.perf_counter()

    def spent(self, name: str) -> None:
        """Count the time since the last call under a name."""
        now = time.perf_counter()
        self._waiting.add(name, now - self._last)
        self._last = now


@dataclass
class _Block:
    """A block on its way through the pipeline."""

    number: int
    box: Box
    tiles_left: int
    encoded: NDArray[Any] | None = None
    skipped: bool = True
    reason: str | None = None


@dataclass(frozen=True)
class Tally:
    """What a run of the pipeline did.

    Attributes:
        stored: blocks stored and recorded, the skipped ones among them.
        skipped: blocks whose every tile cost nothing.
    """

    stored: int
    skipped: int


class Pipeline:
    """One run over some blocks; see the module.

    Args:
        work: what is done for each block.
        workers: threads that compute; more than one where a run leaves the device idle, or waits for a network.
        advance: called with the number of voxels of every piece that has been computed; what it raises ends the run.
        recorded: called with the number of blocks that have been recorded as done since the last call.
        waiting: where the time goes.
    """

    def __init__(
        self,
        work: Work,
        *,
        workers: int = 1,
        advance: Callable[[int], None] | None = None,
        recorded: Callable[[int], None] | None = None,
        waiting: Waiting,
    ) -> None:
        self._work = work
        self._advance = advance or (lambda _: None)
        self._recorded = recorded or (lambda _: None)
        self._waiting = waiting
        self._workers = workers
        self._loaded: Channel[tuple[_Block, Box, Any]] = Channel(_TILES_AHEAD)
        self._whole: Channel[_Block] = Channel(1)
        self._written: Channel[_Block] = Channel(_WRITTEN)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._stored = self._skipped = self._missing = 0

    def run(self, blocks: Iterable[tuple[int, Box]]) -> Tally:
        """Do all blocks; returns when each is recorded as done or missing.

        Raises:
            EmboundaryError: the first error that is no fault of the input; what was whole by then is recorded.
            KeyboardInterrupt: likewise.
        """
        tiles = self._tiles(blocks)
        readers = self._start("read", _READERS, self._read, tiles)
        workers = self._start("compute", self._workers, self._compute)
        writer = self._start("write", 1, self._write)
        recorder = self._start("record", 1, self._record)
        interrupt: KeyboardInterrupt | None = None
        for threads, close in (
            (readers, self._loaded.close),
            (workers, self._whole.close),
            (writer, self._written.close),
            (recorder, None),
        ):
            try:
                _join(threads)
            except KeyboardInterrupt as error:
                interrupt = error
                self._abandon_tiles()
                _join(threads)  # a second interrupt ends this too
            if close is not None:
                close()
        if self._error is not None or interrupt is not None:
            raise self._error or interrupt  # type: ignore[misc]  # one of them is an exception
        return Tally(self._stored, self._skipped)

    def _start(self, name: str, count: int, target: Callable[..., None], *args: Any) -> list[threading.Thread]:
        def guarded() -> None:
            try:
                target(*args)
            except ClosedError:
                pass  # another thread failed, and says why
            except BaseException as error:
                self._fail(error)

        threads = [threading.Thread(target=guarded, name=f"emboundary-{name}", daemon=True) for _ in range(count)]
        for thread in threads:
            thread.start()
        return threads

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            self._error = self._error or error
        self._abandon_tiles()
        if threading.current_thread().name in ("emboundary-write", "emboundary-record"):
            self._whole.abandon()  # what cannot be stored need not be finished
            self._written.close()

    def _abandon_tiles(self) -> None:
        self._stop.set()
        self._loaded.abandon()

    def _tiles(self, blocks: Iterable[tuple[int, Box]]) -> Iterator[tuple[_Block, Box]]:
        for number, box in blocks:
            tiles = list(self._work.tiles(box))
            block = _Block(number, box, len(tiles))
            for tile in tiles:
                yield block, tile

    def _read(self, tiles: Iterator[tuple[_Block, Box]]) -> None:
        while True:
            with self._lock:
                following = next(tiles, None)
            if following is None:
                return
            block, tile = following
            loaded = None
            if block.reason is None:
                try:
                    loaded = self._load(tile)
                except InputError as error:
                    block.reason = str(error)
            self._loaded.put((block, tile, loaded))

    def _load(self, tile: Box) -> Any:
        for seconds in _SECONDS_BEFORE_RETRIES:
            try:
                return self._work.load(tile)
            except InputError:
                self._stop.wait(seconds)
        return self._work.load(tile)

    def _compute(self) -> None:
        clock = _Clock(self._waiting)
        while True:
            try:
                block, tile, loaded = self._loaded.get()
            except ClosedError:
                return
            clock.spent("input")
            if loaded is not None:
                self._run(block, loaded, clock)
            else:
                self._advance(tile.voxels)
            with self._lock:
                block.tiles_left -= 1
                whole = block.tiles_left == 0
            if whole:
                clock.spent("compute")
                self._whole.put(block)
                clock.spent("output")

    def _run(self, block: _Block, loaded: Any, clock: _Clock) -> None:
        with self._lock:
            if block.encoded is None:
                block.encoded = self._work.empty(block.box)
            block.skipped &= self._work.skips(loaded)
        for box, encoded in self._work.run(loaded):
            clock.spent("compute")
            if self._stop.is_set():
                raise ClosedError
            block.encoded[box.relative_to(block.box.start).slices] = encoded
            self._advance(box.voxels)

    def _write(self) -> None:
        for block in self._whole:
            if block.reason is None:
                assert block.encoded is not None  # a block has a tile, and each was loaded
                self._work.write(block.box, block.encoded)
            block.encoded = None
            self._written.put(block)

    def _record(self) -> None:
        for first in self._written:
            blocks = [first, *self._written.drain()]
            self._work.flush()
            stored = [block for block in blocks if block.reason is None]
            self._work.done([block.number for block in stored])
            self._stored += len(stored)
            self._recorded(len(stored))
            self._skipped += sum(block.skipped for block in stored)
            for block in blocks:
                if block.reason is not None:
                    self._work.missing(block.number, block.box, block.reason)
                    self._missing += 1
                    if self._missing >= _HOPELESS and not self._stored:
                        raise InputError(f"none of the first {self._missing} blocks can be read: {block.reason}")


def _join(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join()
