"""Time of one model over that of another, for the same pixels, within rounds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

from emboundary.service.benchmark.records import Ratio, Row, Spread

_EXACT, _BASELINE = "d4", "plain"


def ratios(rows: Sequence[Row]) -> tuple[Ratio, ...]:
    """Every model over the plain one of its size, and eight passes over one of the exactly equivariant one.

    ``d4-base`` is of the size ``base``; only cases that differ in nothing else are compared.
    """
    found = []
    for one, other in product(rows, rows):
        if _alike(one, other) and _is_wanted(one, other):
            times = Spread.of(_times(one, other))
            assert times is not None  # every row has a round
            found.append(
                Ratio(
                    what=one.what,
                    precision=one.precision,
                    tile=one.tile,
                    name=f"{one.title} / {other.title}",
                    times=times,
                )
            )
    return tuple(found)


def _alike(one: Row, other: Row) -> bool:
    cases = [(r.what, r.precision, r.tile, r.shape[:1], r.clients, _kind_and_size(r.model)[1]) for r in (one, other)]
    return cases[0] == cases[1]


def _is_wanted(one: Row, other: Row) -> bool:
    if other.passes != 1:
        return False
    kind = _kind_and_size(other.model)[0]
    if one.passes == 8:
        return kind == _EXACT
    return kind == _BASELINE and one.model != other.model


def _kind_and_size(model: str) -> tuple[str, str]:
    kind, _, size = model.partition("-")
    return kind, size or "small"


def _times(one: Row, other: Row) -> Iterator[float]:
    for a, b in zip(one.rounds, other.rounds, strict=True):
        yield (a.seconds / a.pixels) / (b.seconds / b.pixels)
