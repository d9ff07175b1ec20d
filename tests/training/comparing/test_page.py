from __future__ import annotations

import re

from emboundary.training.comparing.kept_apart import KeptApart
from emboundary.training.comparing.page import render
from emboundary.training.comparing.records import Results
from emboundary.training.comparing.tables import (
    costs_table,
    differences_table,
    mean_table,
    ranking_table,
    sizes_table,
    throughput_table,
)
from emboundary.training.comparing.verdicts import verdicts


def test_the_page_says_every_verdict(results: Results) -> None:
    page = render(results, ())
    for verdict in verdicts(results):
        assert f"| {verdict.claim} | **{verdict.outcome}** | {verdict.measured} |" in page


def test_the_page_is_a_function_of_the_records_alone(results: Results) -> None:
    stored = Results.model_validate_json(results.model_dump_json())
    assert render(stored, ("gains.png",)) == render(results, ("gains.png",))


def test_only_pictures_that_are_there_are_shown(results: Results) -> None:
    assert "](comparison/" not in render(results, ()).replace("](comparison/results.json)", "")
    names = ["gains.png", "curves.png", "losses-all.png", "costs.png", "sizes.png", "regions-a.png"]
    shown = re.findall(r"!\[[^]]+\]\(comparison/([^)]+)\)", render(results, names))
    assert sorted(shown) == sorted(names)


def test_missing_runs_are_listed_and_only_then(results: Results) -> None:
    assert "are in no figure above: `all/paper-2`." in render(results, ())
    assert "## Missing" not in render(results.model_copy(update={"missing": ()}), ())


def test_another_study_is_named_in_the_command(results: Results) -> None:
    assert "compare --data DATA --runs RUNS --out docs\n" in render(results, ())
    other = results.model_copy(update={"study": "mine.toml"})
    assert "compare --data DATA --runs RUNS --out docs --study mine.toml\n" in render(other, ())


def test_a_study_that_was_not_timed_has_a_page(results: Results) -> None:
    page = render(results.model_copy(update={"timing": None}), ())
    assert "Accuracy against cost" not in page
    assert "not measured" in page


def test_a_study_without_any_run_has_a_page(results: Results) -> None:
    page = render(results.model_copy(update={"runs": (), "timing": None}), ())
    assert page.count("**not measured**") == 6
    assert "Measured with" not in page


def test_what_the_figures_do_not_show_stands_above_them(results: Results) -> None:
    assert "## What these figures do not show" not in render(results, ())
    page = render(results.model_copy(update={"caveats": ("The sections chose the recipe.",)}), ())
    shown = page.index("## What these figures do not show\n\n- The sections chose the recipe.\n")
    assert shown < page.index("## Series all")
    assert "1.5 million pixels" in page


def test_records_of_the_first_protocol_say_where_their_thresholds_are_from(results: Results) -> None:
    assert "the largest V_rand on the last training sections" in render(results, ())
    first, *rest = results.runs
    old = first.model_copy(update={"scores": first.scores.model_copy(update={"protocol": 1})})
    page = render(results.model_copy(update={"runs": (old, *rest)}), ())
    assert "The thresholds of V_rand and V_info were chosen on the scored sections themselves" in page
    assert "the largest V_rand on the last training sections" not in page
    assert "](scoreboard/bundled.md)" in page


def test_what_was_kept_apart_comes_first(results: Results) -> None:
    rows = ({"tissue": "fly", "sections": "v 1:2", "score": "V_rand", "d4": "0.98", "plain_8x": "0.99"},)
    page = render(results, (), KeptApart.model_validate({"source": "By others.", "rows": rows}))
    claims = [line for line in page.splitlines() if "as good as plain + 8x" in line]
    assert claims[0].endswith("| **does not hold** | fly: 0 of 1 comparisons |")
    assert "By others." in page
    assert "| fly: v 1:2 | V_rand | 0.98 | 0.99 | **-0.01** |" in page
    assert "nobody trained" not in render(results, ())


def cells_of(table: str) -> list[list[str]]:
    return [line.strip("| ").split(" | ") for line in table.splitlines()]


def test_every_row_of_a_table_has_as_many_cells_as_its_head(results: Results) -> None:
    first, transfer, *_ = results.series
    assert results.timing is not None
    tables = [f(results, s) for f in (ranking_table, differences_table) for s in (first, transfer)]
    tables += [mean_table(results, first), sizes_table(results)]
    tables += [costs_table(results.timing), throughput_table(results.timing)]
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1, table
        assert len(table.splitlines()) > 2, table


def test_scores_stand_in_the_row_of_their_volume_and_model(results: Results) -> None:
    rows = cells_of(ranking_table(results, results.series[0]))
    assert rows[0] == ["scored on", "model", "seeds", "ROC AUC", "average precision", "best F1", "V_rand", "V_info"]
    assert ["b", "plain + 8x", "3", "0.97000 ± 0.00000", "0.9600 ± 0.0000"] in [row[:5] for row in rows]
    assert ["mean", "d4, 1 pass", "3", "0.97700 ± 0.00040", "0.9670 ± 0.0004"] in [row[:5] for row in rows]
    assert [row[2] for row in rows if row[1] == "paper, 1 pass"] == ["2", "2", "2"]


def test_what_falls_short_is_bold(results: Results) -> None:
    rows = {row[0]: row[1] for row in cells_of(differences_table(results, results.series[0]))}
    assert rows["a"] == "+0.00100 ± 0.00040"
    assert rows["b"] == "**-0.00200 ± 0.00000**"


def test_what_is_not_there_is_said_to_be_not_measured(results: Results) -> None:
    without = results.model_copy(update={"runs": tuple(r for r in results.runs if r.model != "d4")})
    assert cells_of(differences_table(without, results.series[0]))[2] == ["a", *["not measured"] * 3]


def test_costs_are_relative_to_one_pass_of_plain(results: Results) -> None:
    assert results.timing is not None
    rows = {row[0]: row for row in cells_of(costs_table(results.timing))}
    assert rows["plain + 8x"][1:5] == ["800,000", "1,088.0", "4.00", "8.000 (8.000 to 8.000)"]
    assert rows["d4, 1 pass"][4:] == ["1.020 (1.020 to 1.020)", "1.0e-06"]
    assert [row[0] for row in cells_of(throughput_table(results.timing))[2:]] == ["d4", "plain", "paper"]
