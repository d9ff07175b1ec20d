from __future__ import annotations

from collections.abc import Callable

import pytest

from emboundary.training.comparing.records import Results, RunRecord, SeriesRecord
from emboundary.training.comparing.statistics import (
    AP,
    AUC,
    CROSS_ENTROPY,
    JUDGED,
    RANKING,
    V_RAND,
    Entry,
    Summary,
    by_seed,
    difference,
    entries,
    is_transfer,
    joined,
    relative,
    score,
    summary,
    training_sections,
)

D4, PLAIN, EIGHT = Entry("d4", 1), Entry("plain", 1), Entry("plain", 8)


def test_the_mean_and_the_sample_deviation_of_three_seeds() -> None:
    assert summary([1.0, 2.0, 4.5]) == Summary(2.5, pytest.approx(1.8027756377), 3)


def test_one_seed_has_no_deviation_and_none_no_summary() -> None:
    assert summary([0.7]) == Summary(0.7, None, 1)
    assert summary([]) is None


def test_every_pass_that_was_scored_is_an_entry(results: Results) -> None:
    assert entries(results, "all") == (D4, PLAIN, EIGHT, Entry("paper", 1))
    assert [e.label for e in entries(results, "transfer")] == ["d4, 1 pass", "plain, 1 pass", "plain + 8x"]


def test_scores_are_those_of_the_volume_and_their_mean_is_taken_within_each_seed(results: Results) -> None:
    assert by_seed(results, "all", EIGHT, AUC, "b") == {0: 0.97, 1: 0.97, 2: 0.97}
    assert by_seed(results, "all", PLAIN, AUC, None) == pytest.approx({0: 0.97, 1: 0.9702, 2: 0.9698})
    found = score(results, "all", PLAIN, AUC, None)
    assert found == Summary(pytest.approx(0.97), pytest.approx(0.0002), 3)


def test_a_seed_that_lacks_a_volume_has_no_mean(results: Results, make_run: Callable[..., RunRecord]) -> None:
    half = make_run("all", "d4", 3, {("a", 1): 0.9})
    more = results.model_copy(update={"runs": (*results.runs, half)})
    assert by_seed(more, "all", D4, AUC, "a")[3] == 0.9
    assert 3 not in by_seed(more, "all", D4, AUC, "b")
    assert 3 not in by_seed(more, "all", D4, AUC, None)


def test_differences_are_paired_by_seed(results: Results) -> None:
    # d4 swings twice as far as plain with the same seeds, so the paired difference swings once.
    assert difference(results, "all", D4, EIGHT, AUC, "a") == Summary(pytest.approx(0.001), pytest.approx(0.0004), 3)
    paired = difference(results, "all", Entry("paper", 1), PLAIN, AUC, "a")
    assert paired is not None
    assert paired.seeds == 2, "paper has no third seed"


def test_a_difference_is_positive_where_the_first_is_better_whatever_the_metric(results: Results) -> None:
    for metric in (*RANKING, CROSS_ENTROPY):
        found = difference(results, "all", EIGHT, PLAIN, metric, "b")
        assert found is not None
        assert found.mean == pytest.approx(0.01), metric.title
    assert not CROSS_ENTROPY.more_is_better


def test_what_nobody_measured_has_no_difference(results: Results) -> None:
    assert difference(results, "transfer", Entry("paper", 1), PLAIN, AP, "b") is None
    assert score(results, "transfer", D4, V_RAND, "a") is None


def test_one_pass_is_judged_by_auc_average_precision_and_v_rand() -> None:
    assert JUDGED == (AUC, AP, V_RAND)


def test_the_ratio_is_the_median_of_the_ratios_within_each_round() -> None:
    # The machine becomes ten times slower with every round; the first always takes twice as long.
    assert relative((2.0, 20.0, 200.0), (1.0, 10.0, 100.0)) == 2.0
    assert relative((1.0, 3.0), (1.0, 1.0)) == 2.0


def test_a_series_on_volumes_it_has_not_seen_is_a_transfer(
    results: Results, make_series: Callable[..., SeriesRecord]
) -> None:
    assert [s.key for s in results.series if is_transfer(s)] == ["transfer"]
    assert not is_transfer(make_series("x", ("d4",), (0,), train={"a": (0, 4)}))


def test_training_sections_of_all_volumes_are_counted(make_series: Callable[..., SeriesRecord]) -> None:
    assert training_sections(make_series("x", ("d4",), (0,), train={"a": (2, 4), "b": (0, 7)})) == 9


def test_a_series_that_joins_another_is_counted_to_it(
    results: Results, make_series: Callable[..., SeriesRecord], make_run: Callable[..., RunRecord]
) -> None:
    extra = make_series("extra", ("other",), (5,), joins="all")
    run = make_run("extra", "paper", 5, {("a", 1): 0.5, ("b", 1): 0.7})
    whole = joined(results.model_copy(update={"series": (*results.series, extra), "runs": (*results.runs, run)}))
    assert [s.key for s in whole.series] == [s.key for s in results.series]
    assert (whole.series[0].models, whole.series[0].seeds) == (("d4", "plain", "paper", "other"), (0, 1, 2, 5))
    assert by_seed(whole, "all", Entry("paper", 1), AUC, None)[5] == 0.6
