from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from emboundary.training.comparing.kept_apart import KeptApartRow, kept_apart_verdict, read_kept_apart
from emboundary.training.comparing.records import RecordError

ROWS = """{"source": "s", "rows": [
 {"tissue": "fly", "sections": "a", "score": "AUC", "d4": "0.98752", "plain_8x": "0.98832"},
 {"tissue": "fly", "sections": "a", "score": "V_rand", "d4": "0.976", "plain_8x": "0.976"},
 {"tissue": "mouse", "sections": "b", "score": "AUC", "difference": [0.005, 0.014]},
 {"tissue": "mouse", "sections": "b", "score": "AP", "difference": [-0.001, 0.014]},
 {"tissue": "FIB", "sections": "c", "score": "AUC", "ahead": true},
 {"tissue": "FIB", "sections": "c", "score": "V_rand", "ahead": false}]}"""


def test_what_is_known_is_shown_with_its_digits_and_shortfalls_are_bold(tmp_path: Path) -> None:
    (tmp_path / "kept.json").write_text(ROWS)
    kept = read_kept_apart(tmp_path / "kept.json")
    assert kept is not None
    assert [row.cells for row in kept.rows] == [
        ("0.98752", "0.98832", "**-0.00080**"),
        ("0.976", "0.976", "+0.000"),
        ("", "", "+0.005 to +0.014"),
        ("", "", "**-0.001 to +0.014**"),
        ("", "", "ahead"),
        ("", "", "**behind**"),
    ]
    verdict = kept_apart_verdict(kept)
    assert verdict.outcome == "holds in part"
    assert verdict.measured == "fly: 1 of 2 comparisons; mouse: 1 of 2 comparisons; FIB: 1 of 2 comparisons"


def test_no_file_is_none_and_another_is_refused(tmp_path: Path) -> None:
    assert read_kept_apart(tmp_path / "none.json") is None
    (tmp_path / "cut.json").write_text(ROWS[:50])
    with pytest.raises(RecordError, match=r"cut\.json holds no figures that were kept apart: "):
        read_kept_apart(tmp_path / "cut.json")


@pytest.mark.parametrize("told", [{}, {"d4": "0.9"}, {"ahead": True, "difference": (0.1, 0.2)}])
def test_a_row_says_one_thing(told: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="one of the three"):
        KeptApartRow(tissue="fly", sections="a", score="AUC", **told)
