from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from emboundary.training.comparing.records import Results, RunRecord, SeriesRecord
from emboundary.training.comparing.statistics import AP, AUC, V_RAND, Summary
from emboundary.training.comparing.verdicts import Verdict, cells, signed, verdicts

MakeRun = Callable[..., RunRecord]
MakeSeries = Callable[..., SeriesRecord]


def study(make_series: MakeSeries, runs: tuple[RunRecord, ...], **changes: Any) -> Results:
    series = make_series("all", ("d4", "plain", "paper"), (0, 1), score={"a": (4, 6)}, title="All")
    found = Results(question="?", study="s.toml", series=(series,), runs=runs, missing=(), timing=None)
    return found.model_copy(update=changes)


def outcomes(results: Results) -> list[str]:
    return [verdict.outcome for verdict in verdicts(results)]


def test_the_verdicts_of_a_study_are_those_of_its_records(results: Results) -> None:
    eight, time, better, near, transfer, scarce = verdicts(results)
    assert eight.claim == (
        "Series all: one pass of d4 is at least as good as plain + 8x, on every volume and on their mean, in AUC, AP "
        "and V_rand"
    )
    assert eight.outcome == "holds in part"
    assert eight.measured == (
        "3 of 9 comparisons; 3 seeds; short in ROC AUC on b by 0.00200, average precision on b by 0.0020, V_rand on b "
        "by 0.0020, ROC AUC on the mean by 0.00050, average precision on the mean by 0.0005, V_rand on the mean by "
        "0.0005"
    )
    assert time == Verdict(
        "One pass of d4 takes at most 1.05 times the time of one pass of plain",
        "holds",
        "1.020 times, the median of 3 rounds (1.020 to 1.020), on cpu",
    )
    assert (better.outcome, near.outcome) == ("holds", "holds")
    assert better.measured == "ROC AUC +0.00540 ± 0.00014; average precision +0.0054 ± 0.0001; 2 seeds"
    assert transfer.outcome == "holds"
    assert transfer.measured == "3 of 3 comparisons; one seed, so by how much seeds differ is not known"
    assert scarce.outcome == "holds"
    assert scarce.measured.startswith("+0.0200 with 1, +0.0100 with 4; one seed")


@pytest.mark.parametrize(
    ("d4", "outcome"), [(0.99, "holds"), (0.98, "holds"), (0.9799, "does not hold"), (0.97, "does not hold")]
)
def test_one_pass_must_be_at_least_as_good_as_eight(
    make_series: MakeSeries, make_run: MakeRun, d4: float, outcome: str
) -> None:
    runs = (
        make_run("all", "d4", 0, {("a", 1): d4}),
        make_run("all", "plain", 0, {("a", 1): 0.97, ("a", 8): 0.98}),
    )
    assert outcomes(study(make_series, runs))[0] == outcome


def test_only_the_same_seed_is_compared(make_series: MakeSeries, make_run: MakeRun) -> None:
    runs = (
        make_run("all", "d4", 0, {("a", 1): 0.99}),
        make_run("all", "plain", 1, {("a", 1): 0.97, ("a", 8): 0.98}),
    )
    first = verdicts(study(make_series, runs))[0]
    assert (first.outcome, first.measured) == ("not measured", "d4 and plain with the same seed are not both finished")


def test_a_study_without_any_run_has_shown_nothing(make_series: MakeSeries) -> None:
    assert outcomes(study(make_series, ())) == ["not measured"] * 4


@pytest.mark.parametrize(("factor", "outcome"), [(1.0, "holds"), (1.05, "holds"), (1.051, "does not hold")])
def test_the_time_is_that_of_one_pass_within_five_percent(results: Results, factor: float, outcome: str) -> None:
    assert results.timing is not None
    d4, *others = results.timing.rows
    slower = d4.model_copy(update={"seconds": tuple(factor * s for s in others[0].seconds)})
    timing = results.timing.model_copy(update={"rows": (slower, *others)})
    assert outcomes(results.model_copy(update={"timing": timing}))[1] == outcome


@pytest.mark.parametrize(
    ("paper", "better", "near"),
    [
        (0.96, "does not hold", "does not hold"),
        (0.974, "holds", "does not hold"),
        (0.976, "holds", "holds"),
        (0.984, "holds", "holds"),
    ],
)
def test_the_published_order_is_reproduced_or_contradicted(
    make_series: MakeSeries, make_run: MakeRun, paper: float, better: str, near: str
) -> None:
    runs = (
        make_run("all", "paper", 0, {("a", 1): paper}),
        make_run("all", "plain", 0, {("a", 1): 0.97, ("a", 8): 0.98}),
    )
    assert outcomes(study(make_series, runs))[2:4] == [better, near]


def scarce(make_series: MakeSeries, make_run: MakeRun, gains: Mapping[int, float]) -> Results:
    series, runs = [make_series("all", ("d4", "plain"), (0,))], []
    for count, gain in gains.items():
        key = f"sections-{count}"
        few = {"train": {"a": (0, count)}, "score": {"a": (4, 6)}, "limited": True}
        series.append(make_series(key, ("d4", "plain"), (0,), **few))
        runs += [
            make_run(key, "d4", 0, {("a", 1): 0.9 + gain}),
            make_run(key, "plain", 0, {("a", 1): 0.9, ("a", 8): 0.9}),
        ]
    return study(make_series, tuple(runs), series=tuple(series))


def test_equivariance_pays_most_where_data_are_scarce_or_not(make_series: MakeSeries, make_run: MakeRun) -> None:
    assert outcomes(scarce(make_series, make_run, {16: 0.01, 1: 0.03, 4: 0.02}))[-1] == "holds"
    assert outcomes(scarce(make_series, make_run, {16: 0.03, 1: 0.01, 4: 0.05}))[-1] == "does not hold"
    told = verdicts(scarce(make_series, make_run, {16: 0.01, 1: 0.03, 4: 0.02}))[-1].measured
    assert told.startswith("+0.0300 with 1, +0.0200 with 4, +0.0100 with 16;")


def test_one_size_alone_shows_nothing_of_scarcity(make_series: MakeSeries, make_run: MakeRun) -> None:
    assert len(verdicts(scarce(make_series, make_run, {1: 0.03}))) == 4


def test_a_single_volume_has_no_mean_of_volumes(results: Results) -> None:
    transfer = next(series for series in results.series if series.key == "transfer")
    assert {cell.volume for cell in cells(results, transfer)} == {"b"}
    assert {cell.volume for cell in cells(results, results.series[0])} == {"a", "b", None}


def test_differences_carry_their_sign_and_their_spread() -> None:
    assert signed(Summary(0.00123, 0.0002, 3), AUC) == "+0.00123 ± 0.00020"
    assert signed(Summary(-0.00123, None, 1), AP) == "-0.0012"
    assert signed(Summary(0.5, 0.25, 2), V_RAND) == "+0.5000 ± 0.2500"
