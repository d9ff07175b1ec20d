"""What was to be shown on a GPU, and whether the records show it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from emboundary.service.benchmark.records import Agreement, Ratio, Report, Row, Spread

BASE, PLAIN = "d4-base", "plain-base"
LEAST_OF_BARE = 0.9
LEAST_RATE = 100e6
MOST_OVER_PLAIN = 1.10
LEAST_OF_EIGHT = 7.0
LEAST_BUSY = 0.9
MOST_DIFFERENCE = {"float32": 1e-4, "float16": 5e-3}
NO_GPU = "no GPU"

Outcome = Literal["holds", "does not hold", "not measured"]


@dataclass(frozen=True)
class Verdict:
    """A claim, what became of it, and the figures behind that."""

    claim: str
    outcome: Outcome
    measured: str


def verdicts(reports: Sequence[Report]) -> tuple[Verdict, ...]:
    """All that was to be shown, judged by what was measured on GPUs."""
    found = [report for report in reports if report.device == "cuda"]
    return (*_speed(found), *_ratios(found), _busy(found), *_agreements(found))


def _speed(reports: Sequence[Report]) -> Iterator[Verdict]:
    row = _base_row(reports)
    bare, rate, seconds = (None, None, None) if row is None else (row.of_bare, row.of_bare_rate, row.pixels_per_second)
    told = "" if rate is None else f"; {rate.median:.2f} where halos count as pixels of the bare session"
    yield _at_least(
        f"`base` in float16, Zarr in to Zarr out, runs at {LEAST_OF_BARE:g} of the bare session's rate over the same "
        "images, or faster",
        reports,
        bare,
        LEAST_OF_BARE,
        told=told,
    )
    yield _at_least(
        f"`base` in float16, Zarr in to Zarr out, maps {LEAST_RATE / 1e6:g} million voxels per second or more",
        reports,
        seconds,
        LEAST_RATE,
        unit=1e6,
        told=" million" if seconds else "",
    )


def _ratios(reports: Sequence[Report]) -> Iterator[Verdict]:
    for precision in MOST_DIFFERENCE:
        ratio = _ratio(reports, f"{BASE} / {PLAIN}", precision)
        claim = f"d4 takes at most {MOST_OVER_PLAIN:.2f} times the time of plain (`base`, {precision})"
        yield _judged(claim, reports, ratio, ratio is not None and ratio.median <= MOST_OVER_PLAIN)
    ratio = _ratio(reports, f"{PLAIN} + 8x / {BASE}", "float16")
    claim = f"plain + 8x takes at least {LEAST_OF_EIGHT:g} times the time of d4 (`base`, float16)"
    yield _at_least(claim, reports, ratio, LEAST_OF_EIGHT)


def _busy(reports: Sequence[Report]) -> Verdict:
    row = _base_row(reports)
    share = None if row is None else Spread.of(one.device for one in row.rounds)
    claim = f"the GPU is busy for {LEAST_BUSY:.0%} of the time or more (`base`, float16, Zarr in to Zarr out)"
    return _at_least(claim, reports, share, LEAST_BUSY)


def _agreements(reports: Sequence[Report]) -> Iterator[Verdict]:
    every: list[Agreement] = [one for report in reports for one in report.agreements]
    for precision, most in MOST_DIFFERENCE.items():
        found = [one for one in every if one.precision == precision]
        claim = f"maps differ from the CPU's in float32 by at most {most:g} in probability ({precision})"
        if not found:
            yield _missing(claim, reports)
            continue
        told = ", ".join(f"{one.model} {one.largest:.1e}" for one in found)
        kept = all(one.largest <= most for one in found)
        yield Verdict(claim, "holds" if kept else "does not hold", told)


def _base_row(reports: Sequence[Report]) -> Row | None:
    """``predict`` with the larger d4 in float16."""
    rows = (row for report in reports for row in report.rows)
    wanted = ("predict", BASE, "float16", 1)
    return next((r for r in rows if (r.what, r.model, r.precision, r.passes) == wanted), None)


def _ratio(reports: Sequence[Report], name: str, precision: str) -> Spread | None:
    every: list[Ratio] = [one for report in reports for one in report.ratios]
    return next((r.times for r in every if (r.what, r.name, r.precision) == ("predict", name, precision)), None)


def _at_least(
    claim: str, reports: Sequence[Report], value: Spread | None, least: float, *, unit: float = 1.0, told: str = ""
) -> Verdict:
    return _judged(claim, reports, value, value is not None and value.median >= least, unit=unit, told=told)


def _judged(
    claim: str, reports: Sequence[Report], value: Spread | None, kept: bool, *, unit: float = 1.0, told: str = ""
) -> Verdict:
    if value is None:
        return _missing(claim, reports)
    median, low, high = (n / unit for n in (value.median, value.low, value.high))
    return Verdict(claim, "holds" if kept else "does not hold", f"{median:.3g} ({low:.3g} to {high:.3g}){told}")


def _missing(claim: str, reports: Sequence[Report]) -> Verdict:
    return Verdict(claim, "not measured", "not on this GPU" if reports else NO_GPU)
