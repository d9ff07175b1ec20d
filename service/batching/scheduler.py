r"""The device's one queue: tiles of all requests and jobs, put together to batches, computed one batch after another.

            submit                      batch (one network, one shape)
requests ---------> online, fair --\    up to batch_pixels, waiting a few ms for requests on their way in
jobs     ---------> jobs, fair   ---+--> normalise -> pad to bucket -> network -> crop -> store -> accept
                    (behind all online)  (on the device, where that is a GPU)

One request's fault stays its own: where a batch fails, its tiles are run one by one.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

from emboundary.service.batching.buckets import Buckets
from emboundary.service.batching.errors import ExpiredError, OverloadedError, StoppedError, TooLongError
from emboundary.service.batching.fair_queue import FairQueue
from emboundary.service.batching.observer import NoObserver, Observer
from emboundary.service.batching.speed import Speed
from emboundary.service.batching.ticket import Ticket, Tile
from emboundary.service.engine import Answer, ModelEngine
from emboundary.service.run.parts import answers, mapper_of

_Entry = tuple[Ticket, Tile]
# A CPU is no faster in large batches (measured from 160 x 160 pixels on): they would only make one wait for another.
_BATCH_PIXELS = {"cpu": 1 << 18, "cuda": 1 << 20}
# Nobody is sent away for longer than this, whatever the queue holds.
_LONGEST_RETRY_S = 60


@dataclass(frozen=True)
class Policy:
    """How much waits, and for what.

    Attributes:
        queue_tiles: tiles of requests that wait at most; those of jobs do not count.
        batch_pixels: of a batch, halos included; a single tile may have more.  None: what suits the device.
        batch_wait_s: longest wait for requests on their way in.
        bucket_sides: see ``Buckets.for_device``.
    """

    queue_tiles: int = 1024
    batch_pixels: int | None = None
    batch_wait_s: float = 0.002
    bucket_sides: tuple[int, ...] | None = None

    def pixels(self, device: str) -> int:
        """Pixels of a batch on a device."""
        return _BATCH_PIXELS[device] if self.batch_pixels is None else self.batch_pixels


@dataclass
class Batch:
    """Tiles that go through one network together.

    Attributes:
        job: whether they are a job's.
        entries: tiles with their tickets.
        queued: whether they still take places of the queue.
    """

    job: bool
    entries: list[_Entry]
    queued: bool = True

    @property
    def engine(self) -> ModelEngine:
        """The network."""
        return self.entries[0][1].engine


class Scheduler:
    """The queue in front of the device, and the threads behind it.

    Args:
        policy: its bounds.
        observer: told what the device does.
        clock: in seconds, monotonic.
    """

    def __init__(
        self, policy: Policy, observer: Observer | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._policy = policy
        self._observer = observer or NoObserver()
        self._clock = clock
        self._speed = Speed()
        self._changed = threading.Condition()
        self._online = FairQueue()
        self._jobs = FairQueue()
        self._formed = 0  # tiles of requests that are in a batch and not yet in the network
        self._coming = 0
        self._closed = False
        self._device = threading.Lock()
        self._running = 0  # batches in networks
        self._counted = 0.0  # until when busy time is counted
        self._busy_since: float | None = None
        self._last_success: float | None = None
        self._threads: list[threading.Thread] = []

    def start(self, threads: int = 1) -> None:
        """Begin to compute what is submitted; as many threads as a network has lanes keep a GPU at work."""
        for _ in range(threads):
            thread = threading.Thread(target=self._work, name="emboundary-device", daemon=True)
            thread.start()
            self._threads.append(thread)

    def close(self) -> None:
        """Fail what waits, and end when the batches in the network are done."""
        with self._changed:
            self._closed = True
            for queue in (self._online, self._jobs):
                for ticket in list(queue):
                    self._end(ticket, StoppedError("the service stops, and this was not computed; try again later"))
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    @property
    def waiting_tiles(self) -> int:
        """Tiles of requests that are not in the network yet."""
        with self._changed:
            return self._online.tiles + self._formed

    @property
    def waiting_job_tiles(self) -> int:
        """Tiles of jobs that are not in the network yet."""
        with self._changed:
            return self._jobs.tiles

    def silent_s(self) -> float:
        """Seconds since the device last did, or began, a batch; infinite where it never has."""
        last = max(self._busy_since or -math.inf, self._last_success or -math.inf)
        return self._clock() - last

    def batch_pixels(self, engine: ModelEngine) -> int:
        """Pixels of one network's batches, halos included."""
        return self._policy.pixels(engine.device)

    def deadline(self, seconds: float) -> float:
        """A deadline in so many seconds, for tickets."""
        return self._clock() + seconds

    def learn(self, engine: ModelEngine, pixels: int, seconds: float) -> None:
        """Take in what a network took for so many pixels outside the queue."""
        with self._changed:
            self._speed.learn(engine, pixels, seconds)

    @contextmanager
    def coming(self) -> Iterator[Callable[[], None]]:
        """Say that a request is on its way in, so that batches wait for it; the function says that it has come."""
        with self._changed:
            self._coming += 1
        come = False

        def settle() -> None:
            nonlocal come
            with self._changed:
                if not come:
                    come = True
                    self._coming -= 1
                    self._changed.notify_all()

        try:
            yield settle
        finally:
            settle()

    def submit(self, ticket: Ticket) -> None:
        """Queue a ticket.

        Raises:
            TooLongError: it alone is more than fits into its time, or into the queue.
            OverloadedError: it does not fit now.
            StoppedError: the service stops.
        """
        with self._changed:
            if self._closed:
                raise StoppedError("the service stops and takes nothing new; try again later")
            if ticket.ended:  # cancelled before it came here
                return
            if not ticket.job:
                self._refuse_unfit(ticket)
            ticket.entered = self._clock()
            (self._jobs if ticket.job else self._online).add(ticket)
            self._changed.notify_all()

    def cancel(self, ticket: Ticket, error: BaseException) -> None:
        """End a ticket with an error, unless it has ended; its waiting tiles are dropped."""
        with self._changed:
            self._end(ticket, error)

    def _refuse_unfit(self, ticket: Ticket) -> None:
        tiles, room = len(ticket.tiles), self._policy.queue_tiles
        if tiles > room:
            raise TooLongError(f"the image is {tiles} tiles, of which at most {room} may wait at a time")
        needed = sum(self._speed.seconds(tile.engine, tile.pixels) for tile in ticket.tiles)
        left = math.inf if ticket.deadline is None else ticket.deadline - self._clock()
        if needed > left:
            raise TooLongError(f"the image is estimated to take {needed:.3g} s, but has to be answered in {left:.3g} s")
        before = sum(self._speed.seconds(tile.engine, tile.pixels) for other in self._online for tile in other.tiles)
        retry = min(_LONGEST_RETRY_S, max(1, math.ceil(before)))
        waiting = self._online.tiles + self._formed
        if waiting + tiles > room:
            raise OverloadedError(
                f"{waiting} tiles wait, this image is {tiles} more, and at most {room} may wait; try again after the "
                "seconds that Retry-After names",
                retry,
            )
        if before + needed > left:
            raise OverloadedError(
                f"what waits is estimated to take {before:.3g} s and this image {needed:.3g} s, but it has to be "
                f"answered in {left:.3g} s; try again after the seconds that Retry-After names",
                retry,
            )

    def _end(self, ticket: Ticket, error: BaseException | None) -> None:
        (self._jobs if ticket.job else self._online).remove(ticket)
        ticket.end(error)

    def _work(self) -> None:
        while (batch := self._next()) is not None:
            try:
                self._compute(batch)
            except Exception as error:
                self._apart(batch, error)
            finally:
                self._leave_queue(batch)

    def _apart(self, batch: Batch, error: Exception) -> None:
        """Find out whose fault it was: every tile by itself."""
        if len(batch.entries) == 1:
            self.cancel(batch.entries[0][0], error)
            return
        for entry in batch.entries:
            try:
                self._compute(Batch(batch.job, [entry], queued=False))
            except Exception as cause:  # whatever it is, it is this ticket's own
                self.cancel(entry[0], cause)

    def _next(self) -> Batch | None:
        """Wait for tiles, and put together what goes together; None at the end."""
        with self._changed:
            while True:
                self._drop_expired()
                job = not self._online.tiles
                queue = self._jobs if job else self._online
                if (first := queue.take()) is not None:
                    break
                if self._closed:
                    return None
                self._changed.wait()
            batch = Batch(job, [first])
            self._formed += not job
            until = self._clock() + self._policy.batch_wait_s
            while self._fill(batch, queue) and self._coming and not job and not self._closed:
                left = until - self._clock()
                if left <= 0:
                    break
                self._changed.wait(left)
            return batch

    def _fill(self, batch: Batch, queue: FairQueue) -> bool:
        """Add what fits to a batch; whether there is room for more."""
        buckets = self._buckets(batch.engine)
        y, x = shape = buckets.shape(*batch.entries[0][1].shape[1:])
        room = self._policy.pixels(batch.engine.device) // (y * x) - sum(tile.shape[0] for _, tile in batch.entries)

        def fits(tile: Tile) -> bool:
            return tile.engine is batch.engine and tile.shape[0] <= room and buckets.shape(*tile.shape[1:]) == shape

        while (taken := queue.take(fits)) is not None:
            batch.entries.append(taken)
            self._formed += not batch.job
            room -= taken[1].shape[0]
        return room > 0

    def _compute(self, batch: Batch) -> None:
        """Run a batch through the network; tickets that have ended meanwhile are left out."""
        live = [(ticket, tile) for ticket, tile in batch.entries if not ticket.ended]
        if not live:
            return
        engine, buckets = batch.engine, self._buckets(batch.engine)
        parts = [tile.part() for _, tile in live]
        side = buckets.shape(*live[0][1].shape[1:])
        with self._device if mapper_of(engine) is None else nullcontext():
            began = self._begin(batch, live)
            try:
                found = answers(engine, parts, side, powers=buckets.powers)
            finally:
                ended, busy = self._clock(), self._rest()
        voxels = sum(len(part.voxels) for part in parts) * side[0] * side[1]
        self._ran(batch, live, voxels, ended - began, busy)
        self._hand_out(live, found)

    def _begin(self, batch: Batch, live: list[_Entry]) -> float:
        """Note that a batch goes into the network; returns when."""
        self._leave_queue(batch)
        with self._changed:
            now = self._busy_since = self._clock()
            if not self._running:
                self._counted = now
            self._running += 1
        for ticket, _ in live:
            if ticket.started is None:
                ticket.started = now
            self._observer.waited(now - ticket.entered, job=batch.job)
        return now

    def _rest(self) -> float:
        """Note that a batch has left the network; returns seconds in which any was there, each counted once."""
        with self._changed:
            now = self._clock()
            self._running -= 1
            if not self._running:
                self._busy_since = None
            busy, self._counted = now - self._counted, now
            return busy

    def _leave_queue(self, batch: Batch) -> None:
        """Give the queue's places of a batch back, once."""
        with self._changed:
            if batch.queued and not batch.job:
                self._formed -= len(batch.entries)
            batch.queued = False

    def _ran(self, batch: Batch, live: list[_Entry], voxels: int, seconds: float, busy: float) -> None:
        engine = batch.engine
        with self._changed:
            self._speed.learn(engine, voxels, busy)
            self._last_success = self._clock()
        self._observer.ran(
            f"{engine.description.name}/{engine.description.version}",
            tiles=len(live),
            voxels=voxels,
            seconds=seconds,
            busy=busy,
            job=batch.job,
        )

    def _hand_out(self, live: list[_Entry], found: list[Answer]) -> None:
        for (ticket, tile), answer in zip(live, found, strict=True):
            try:
                tile.accept(answer)
            except Exception as error:  # a result that this ticket alone has no use for
                self.cancel(ticket, error)
                continue
            with self._changed:
                ticket.computed()

    def _drop_expired(self) -> None:
        now = self._clock()
        for ticket in [t for t in self._online if t.deadline is not None and t.deadline < now]:
            self._end(ticket, expired())

    def _buckets(self, engine: ModelEngine) -> Buckets:
        return Buckets.for_device(engine.device, engine.footprint, self._policy.bucket_sides)


def expired() -> ExpiredError:
    """The error of a ticket whose deadline has passed."""
    return ExpiredError(
        "the time for this request ran out before it was computed; send less at a time, or try again when the service "
        "is less busy"
    )
