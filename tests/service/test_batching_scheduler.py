"""The device's queue, with an engine that can be held."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest

from emboundary.model.description import ModelDescription
from emboundary.model.geometry import Footprint
from emboundary.model.repository import load_model
from emboundary.service.batching.background import BackgroundEngine
from emboundary.service.batching.errors import ExpiredError, OverloadedError, StoppedError, TooLongError
from emboundary.service.batching.scheduler import Policy, Scheduler
from emboundary.service.batching.ticket import Ticket, Tile
from emboundary.service.engine import Answer, Images, Part
from emboundary.service.errors import DeviceError, InterruptedRunError

FOOTPRINT = Footprint((0, 8, 8), (1, 4, 4))


def part(images: Images) -> Part:
    """Images that are normalised already, and the whole of their map."""
    return Part(images, 0.0, 1.0, slice(None), slice(None))


@dataclass(eq=False)
class HeldEngine:
    """Doubles its input, when it is let; fails on images that hold -1."""

    description: ModelDescription
    open: threading.Event = field(default_factory=threading.Event)
    reached: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    firsts: list[float] = field(default_factory=list)
    device: str = "cpu"
    precision: str = "float32"
    footprint: Footprint = FOOTPRINT
    outputs: tuple[str, ...] = ("boundary",)

    def run(self, images: Images) -> Images:
        self.shapes.append(images.shape)
        self.firsts.extend(float(image.flat[0]) for image in images)
        self.reached.release()
        assert self.open.wait(30)
        if (images == -1).any():
            raise DeviceError("an image that no device can bear")
        return images * 2

    def occupied(self) -> bool:
        return self.reached.acquire(timeout=30)


@dataclass
class Client:
    """Submits tickets and waits for them."""

    scheduler: Scheduler
    engine: HeldEngine

    def ask(
        self, *values: float, client: str = "a", side: int = 8, images: int = 1, deadline: float | None = None
    ) -> Asked:
        asked = Asked()
        tiles = [
            Tile(
                self.engine,  # type: ignore[arg-type]  # precision is a plain string here
                (images, side, side),
                lambda value=value: part(np.full((images, 1, side, side), value, np.float32)),  # type: ignore[misc]
                lambda answer, value=value: asked.results.update({value: answer.stored.copy()}),  # type: ignore[misc]
            )
            for value in values
        ]
        asked.ticket = Ticket(client, tiles, deadline=deadline, on_end=asked.end)
        self.scheduler.submit(asked.ticket)
        return asked


@dataclass
class Asked:
    """What came of a ticket."""

    results: dict[float, Images] = field(default_factory=dict)
    ended: threading.Event = field(default_factory=threading.Event)
    error: BaseException | None = None
    ticket: Ticket = field(init=False)

    def end(self, error: BaseException | None) -> None:
        assert not self.ended.is_set()
        self.error = error
        self.ended.set()

    def outcome(self) -> BaseException | None:
        assert self.ended.wait(30)
        return self.error


Make = Callable[..., Client]


@pytest.fixture
def make(repository: object) -> Iterator[Make]:
    made: list[Client] = []

    def begin(policy: Policy | None = None, **more: float) -> Client:
        scheduler = Scheduler(policy or Policy(batch_pixels=256, batch_wait_s=0, **more))  # type: ignore[arg-type]
        client = Client(scheduler, HeldEngine(load_model("d4", repository).description))  # type: ignore[arg-type]
        scheduler.start()
        made.append(client)
        return client

    yield begin
    for client in made:
        client.engine.open.set()
        client.scheduler.close()


def test_every_tile_gets_its_own_result(make: Make) -> None:
    client = make()
    client.engine.open.set()
    asked = [client.ask(*(float(10 * n + k) for k in range(3)), client=str(n)) for n in range(5)]
    for n, one in enumerate(asked):
        assert one.outcome() is None
        assert {k: v.flat[0] for k, v in one.results.items()} == {10.0 * n + k: 2 * (10.0 * n + k) for k in range(3)}
        assert all(result.shape == (1, 1, 8, 8) for result in one.results.values())


def test_tiles_of_one_shape_share_a_batch_up_to_its_pixels(make: Make) -> None:
    client = make()
    first = client.ask(0)
    assert client.engine.occupied()
    others = [client.ask(float(n), client=str(n)) for n in range(1, 6)]
    other_shape = client.ask(9, side=12, client="z")
    assert client.scheduler.waiting_tiles == 6
    client.engine.open.set()
    assert [one.outcome() for one in (first, *others, other_shape)] == [None] * 7
    assert sorted(client.engine.shapes) == [(1, 1, 8, 8), (1, 1, 8, 8), (1, 1, 12, 12), (4, 1, 8, 8)]
    assert other_shape.results[9].shape == (1, 1, 12, 12)


def test_a_tile_larger_than_a_batch_still_runs(make: Make) -> None:
    client = make()
    client.engine.open.set()
    assert client.ask(3, side=32).outcome() is None


def test_tiles_are_padded_to_buckets_and_cut_back(make: Make) -> None:
    client = make(Policy(batch_pixels=1 << 12, batch_wait_s=0, bucket_sides=(16,)))
    first = client.ask(5)
    assert client.engine.occupied()
    asked = [client.ask(1, side=8, client="b"), client.ask(2, side=12, client="c")]
    client.engine.open.set()
    assert [one.outcome() for one in (first, *asked)] == [None] * 3
    assert client.engine.shapes == [(1, 1, 16, 16), (2, 1, 16, 16)]
    assert asked[0].results[1].shape == (1, 1, 8, 8)
    assert (asked[1].results[2] == 4).all()


def test_a_batch_waits_for_requests_on_their_way_in(make: Make) -> None:
    client = make(Policy(batch_pixels=256, batch_wait_s=30))
    client.engine.open.set()
    with client.scheduler.coming() as come:
        first = client.ask(1)
        second = client.ask(2, client="b")
        come()
    assert [first.outcome(), second.outcome()] == [None, None]
    assert client.engine.shapes == [(2, 1, 8, 8)]
    alone = client.ask(3)  # nobody is coming: there is nothing to wait for
    assert alone.outcome() is None


def test_a_full_batch_waits_for_nobody(make: Make) -> None:
    client = make(Policy(batch_pixels=64, batch_wait_s=30))
    client.engine.open.set()
    with client.scheduler.coming():
        assert client.ask(1).outcome() is None


def test_what_does_not_fit_is_refused_and_what_is_there_stays(make: Make) -> None:
    client = make(queue_tiles=3)
    first = client.ask(0)
    assert client.engine.occupied()
    second = client.ask(1, 2)
    with pytest.raises(OverloadedError, match="2 tiles wait, this image is 2 more, and at most 3 may wait") as refused:
        client.ask(3, 4)
    assert refused.value.retry_after_s >= 1
    third = client.ask(5)
    with pytest.raises(TooLongError, match="the image is 4 tiles, of which at most 3 may wait"):
        client.ask(1, 2, 3, 4)
    client.engine.open.set()
    assert [one.outcome() for one in (first, second, third)] == [None] * 3


def test_estimates_decide_between_never_and_not_now(make: Make) -> None:
    client = make()
    client.scheduler.learn(client.engine, 64, 1.0)  # type: ignore[arg-type]
    first = client.ask(0)
    assert client.engine.occupied()
    with pytest.raises(TooLongError, match="estimated to take 2 s, but has to be answered in 1"):
        client.ask(1, 2, deadline=client.scheduler.deadline(1.5))
    second = client.ask(1, 2, 3)
    with pytest.raises(OverloadedError, match="what waits is estimated to take 3 s and this image 1 s") as refused:
        client.ask(4, deadline=client.scheduler.deadline(3.5))
    assert refused.value.retry_after_s == 3
    client.engine.open.set()
    assert [first.outcome(), second.outcome()] == [None, None]


def test_what_is_past_its_deadline_is_dropped_before_it_is_computed(make: Make) -> None:
    client = make()
    first = client.ask(0)
    assert client.engine.occupied()
    late = client.ask(1, 2, deadline=client.scheduler.deadline(0.01))
    threading.Event().wait(0.05)
    client.engine.open.set()
    assert isinstance(late.outcome(), ExpiredError)
    assert first.outcome() is None
    assert client.engine.firsts == [0]


def test_a_cancelled_ticket_frees_its_places_and_is_not_computed(make: Make) -> None:
    client = make(queue_tiles=2)
    first = client.ask(0)
    assert client.engine.occupied()
    gone = client.ask(1, 2)
    client.scheduler.cancel(gone.ticket, StoppedError("gone"))
    assert client.scheduler.waiting_tiles == 0
    follower = client.ask(3, 4)
    client.engine.open.set()
    assert [one.outcome() for one in (first, follower)] == [None, None]
    assert isinstance(gone.error, StoppedError)
    assert client.engine.firsts == [0, 3, 4]


def test_one_bad_tile_in_a_batch_fails_alone(make: Make) -> None:
    client = make()
    first = client.ask(0)
    assert client.engine.occupied()
    good, bad, fine = client.ask(1, client="g"), client.ask(-1, client="b"), client.ask(2, client="f")
    client.engine.open.set()
    assert [one.outcome() for one in (first, good, fine)] == [None] * 3
    assert isinstance(bad.outcome(), DeviceError)
    assert (good.results[1] == 2).all()
    assert client.scheduler.waiting_tiles == 0


def test_what_refuses_its_result_fails_alone(make: Make) -> None:
    client = make()
    client.engine.open.set()

    def refuse(_: Answer) -> None:
        raise ValueError("not wanted")

    asked = Asked()
    tile = Tile(client.engine, (1, 8, 8), lambda: part(np.zeros((1, 1, 8, 8), np.float32)), refuse)  # type: ignore[arg-type]
    client.scheduler.submit(Ticket("a", [tile, tile], on_end=asked.end))
    assert isinstance(asked.outcome(), ValueError)
    assert client.ask(1).outcome() is None


def test_requests_go_before_jobs(make: Make) -> None:
    client = make(Policy(batch_pixels=64, batch_wait_s=0))
    job = BackgroundEngine("job", client.engine, client.scheduler)  # type: ignore[arg-type]
    first = client.ask(0)
    assert client.engine.occupied()
    thread = threading.Thread(target=lambda: results.append(job.run(np.full((1, 1, 8, 8), 7, np.float32))))
    results: list[Images] = []
    thread.start()
    while not client.scheduler.waiting_job_tiles:
        threading.Event().wait(0.005)
    asked = client.ask(1, 2)
    assert client.scheduler.waiting_tiles == 2  # a job's tile is none of a request's places
    client.engine.open.set()
    assert [first.outcome(), asked.outcome()] == [None, None]
    thread.join()
    assert client.engine.firsts == [0, 1, 2, 7]
    assert (results[0] == 14).all()


def test_a_cancelled_job_waits_no_longer(make: Make) -> None:
    client = make()
    job = BackgroundEngine("job", client.engine, client.scheduler)  # type: ignore[arg-type]
    first = client.ask(0)
    assert client.engine.occupied()
    raised = []

    def run() -> None:
        try:
            job.run(np.zeros((1, 1, 8, 8), np.float32))
        except InterruptedRunError as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    while not client.scheduler.waiting_job_tiles:
        threading.Event().wait(0.005)
    job.cancel()
    thread.join()
    assert len(raised) == 1
    with pytest.raises(InterruptedRunError):
        job.run(np.zeros((1, 1, 8, 8), np.float32))
    client.engine.open.set()
    assert first.outcome() is None


def test_a_ticket_that_was_cancelled_before_it_came_is_not_queued(make: Make) -> None:
    client = make()
    asked = Asked()
    tile = Tile(client.engine, (1, 8, 8), lambda: part(np.zeros((1, 1, 8, 8), np.float32)), lambda _: None)  # type: ignore[arg-type]
    ticket = Ticket("job", [tile], job=True, on_end=asked.end)
    client.scheduler.cancel(ticket, InterruptedRunError("cancelled"))
    client.scheduler.submit(ticket)
    assert isinstance(asked.outcome(), InterruptedRunError)
    assert client.scheduler.waiting_job_tiles == 0
    client.engine.open.set()
    assert client.ask(1).outcome() is None  # the device's thread goes on


def test_closing_finishes_what_is_in_the_network_and_refuses_the_rest(make: Make) -> None:
    client = make()
    first = client.ask(0)
    assert client.engine.occupied()
    waits = client.ask(1)
    closing = threading.Thread(target=client.scheduler.close)
    closing.start()
    assert isinstance(waits.outcome(), StoppedError)
    assert not first.ended.is_set()
    client.engine.open.set()
    closing.join()
    assert first.outcome() is None
    with pytest.raises(StoppedError, match="takes nothing new"):
        client.ask(2)


def test_two_threads_do_not_share_the_device(make: Make) -> None:
    client = make(Policy(batch_pixels=64, batch_wait_s=0))
    client.scheduler.start()
    asked = client.ask(1, 2, 3)
    assert client.engine.occupied()
    assert not client.engine.reached.acquire(timeout=0.05)
    assert client.scheduler.waiting_tiles == 2  # the one that the second thread has prepared still waits
    client.engine.open.set()
    assert asked.outcome() is None
    assert sorted(asked.results) == [1, 2, 3]
