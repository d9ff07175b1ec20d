from __future__ import annotations

from typing import cast

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from emboundary.service.batching.fair_queue import FairQueue
from emboundary.service.batching.ticket import Ticket, Tile
from emboundary.service.engine import ModelEngine, Part

ENGINE = cast(ModelEngine, object())
PART = Part(np.zeros((1, 1, 1, 1), np.float32), 0.0, 1.0, slice(None), slice(None))


def ticket(client: str, *sides: int) -> Ticket:
    tiles = [Tile(ENGINE, (1, side, side), lambda: PART, lambda _: None) for side in sides]
    return Ticket(client, tiles, on_end=lambda _: None)


def order(queue: FairQueue) -> list[str]:
    clients = []
    while (taken := queue.take()) is not None:
        clients.append(taken[0].client)
    return clients


def test_clients_take_turns_however_many_tiles_each_has() -> None:
    queue = FairQueue()
    queue.add(ticket("greedy", *[8] * 6))
    queue.add(ticket("modest", 8, 8))
    assert queue.tiles == 8
    assert order(queue) == ["greedy", "modest", "greedy", "modest", *["greedy"] * 4]
    assert queue.tiles == 0


def test_shares_are_of_pixels_and_not_of_tiles() -> None:
    queue = FairQueue()
    queue.add(ticket("large", *[16] * 4))
    queue.add(ticket("small", *[8] * 8))
    served = order(queue)
    assert served[:10].count("small") == 8 - served[10:].count("small")
    assert served[:5].count("small") == 4  # one large tile is worth four small ones


def test_nobody_saves_up_shares_while_away() -> None:
    queue = FairQueue()
    queue.add(ticket("early", *[8] * 10))
    for _ in range(5):
        queue.take()
    queue.add(ticket("late", *[8] * 5))
    assert order(queue)[:6].count("late") == 3


def test_one_clients_requests_come_one_after_the_other() -> None:
    queue = FairQueue()
    first, second = ticket("a", 8, 8), ticket("a", 8)
    queue.add(first)
    queue.add(second)
    assert [taken[0] for taken in (queue.take(), queue.take(), queue.take()) if taken] == [first, first, second]


def test_what_does_not_fit_is_passed_over_and_stays() -> None:
    queue = FairQueue()
    queue.add(ticket("a", 16, 8))
    queue.add(ticket("b", 8))
    taken = queue.take(lambda tile: tile.shape[1] == 8)
    assert taken is not None
    assert taken[0].client == "b"
    assert queue.take(lambda tile: tile.shape[1] == 8) is None
    assert order(queue) == ["a", "a"]


def test_a_ticket_that_is_removed_takes_its_tiles_along() -> None:
    queue = FairQueue()
    gone = ticket("a", 8, 8)
    queue.add(gone)
    queue.add(ticket("a", 8))
    queue.take()
    queue.remove(gone)
    queue.remove(gone)
    assert queue.tiles == 1
    assert list(queue) != [gone]
    assert order(queue) == ["a"]


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.lists(st.sampled_from([8, 16, 32]), min_size=1, max_size=5)), max_size=9
    )
)
def test_while_two_clients_wait_neither_is_ahead_by_more_than_one_tile(tickets: list[tuple[str, list[int]]]) -> None:
    queue = FairQueue()
    left = dict.fromkeys("abc", 0)
    for client, sides in tickets:
        queue.add(ticket(client, *sides))
        left[client] += len(sides)
    served = dict.fromkeys("abc", 0)
    while (taken := queue.take()) is not None:
        client = taken[0].client
        served[client] += taken[1].pixels
        left[client] -= 1
        still = [served[c] for c in "abc" if left[c]]
        assert max(still, default=0) - min(still, default=0) <= 32 * 32
    assert not any(left.values())
