from __future__ import annotations

from typing import Any

from emboundary.training.comparing.records import Environment
from emboundary.training.scoreboard.page import difference, render, value_of
from emboundary.training.scoreboard.records import PROTOCOL, Board, EntryRecord, Measured, VolumeRecord

HERE = Environment(versions={"python": "3.11.0"}, processor="a processor", cores=2, device="cpu")


def measured(sha: str, volume: str, passes: Any, value: float, **changes: Any) -> Measured:
    scores = {"roc_auc": value, "average_precision": value, "v_rand": value, "v_rand_at_half": value - 0.1}
    errors = dict.fromkeys(("voi_split", "voi_merge", "adapted_rand", "cremi"), 1 - value)
    whole = {
        "sha256": sha, "protocol": PROTOCOL, "volume": volume, "sections": (4, 6), "chosen_on": (0, 4),
        "passes": passes, "parameters": 1000, "flops_per_pixel": 2000.0, "boundary": 0.1, "joining": 0.4,
        "seconds": 1.0, "environment": HERE, **scores, **errors,
    }  # fmt: skip
    return Measured.model_validate(whole | changes)


def made_up(**changes: Any) -> Board:
    """One is ahead on a and behind on b; two is behind on both; the reference takes 8 passes."""
    volumes = tuple(VolumeRecord(name=n, sections=(4, 6), chosen_on=(0, 4), used_for=f"for {n}") for n in "ab")
    entries = [("one", "1" * 64, 1), ("two", "2" * 64, 1), ("two + 8x", "2" * 64, 8)]
    return Board(
        title="Which?",
        file="which.toml",
        reference="two + 8x",
        interest=("one",),
        used_for="",
        volumes=volumes,
        entries=tuple(EntryRecord(label=n, model=f"./{n}", sha256=s, passes=p) for n, s, p in entries),  # type: ignore[arg-type]
        measured=(
            measured("1" * 64, "a", 1, 0.95),
            measured("1" * 64, "b", 1, 0.90),
            measured("2" * 64, "a", 1, 0.92),
            measured("2" * 64, "b", 1, 0.89),
            measured("2" * 64, "a", 8, 0.94),
            measured("2" * 64, "b", 8, 0.92),
        ),
    ).model_copy(update=changes)


def test_differences_are_positive_where_the_entry_is_better_whatever_the_score() -> None:
    board = made_up()
    a, b = board.volumes
    for score in ("roc_auc", "cremi"):
        assert round(difference(board, "one", a, score) or 0, 6) == 0.01, score  # type: ignore[arg-type]
        assert round(difference(board, "one", b, score) or 0, 6) == -0.02, score  # type: ignore[arg-type]
        assert round(difference(board, "one", None, score) or 0, 6) == -0.005, score  # type: ignore[arg-type]


def test_what_does_not_show_is_a_tie() -> None:
    board = made_up()
    close = measured("1" * 64, "a", 1, 0.94 - 4e-6, cremi=0.06 + 4e-6)
    page = render(board.model_copy(update={"measured": (close, *board.measured[1:])}))
    assert "| a | one | +0.00000 | +0.0000 | +0.0000 |" in page


def test_only_shortfalls_of_entries_of_interest_are_bold() -> None:
    page = render(made_up())
    assert "| a | one | +0.01000 | +0.0100 | +0.0100 | +0.0100 | +0.0100 | +0.0100 |" in page
    assert "| b | one | **-0.02000** | **-0.0200** |" in page
    assert "| mean | one | **-0.00500** | **-0.0050** |" in page
    assert "| a | two | -0.02000 | -0.0200 |" in page
    assert "one is at least as good as two + 8x in 3 of 9 comparisons" in page


def test_sections_their_other_uses_models_and_costs_are_said() -> None:
    page = render(made_up())
    assert "| a | 4:6 | 0:4 | for a |" in page
    assert "| two + 8x | `./two + 8x` | `222222222222` | 8 | 1,000 | 16.0 |" in page
    assert "| one | 0.95000 | 0.9500 | 0.9500 | 0.8500 | 0.050 | 0.050 | 0.0500 | 0.0500 | 0.1 | 0.4 |" in page
    overall = render(made_up(used_for="chose the recipe"))
    assert "What else the scored sections were used for: chose the recipe." in overall
    assert "for a" not in overall


def test_a_mean_needs_every_volume_and_records_must_be_of_these_sections() -> None:
    board = made_up()
    other = measured("1" * 64, "b", 1, 0.99, chosen_on=(0, 3))
    lacking = board.model_copy(update={"measured": (board.measured[0], other, *board.measured[2:])})
    one = board.entries[0]
    assert value_of(lacking, one, board.volumes[1], "roc_auc") is None
    assert value_of(lacking, one, None, "roc_auc") is None
    assert "| mean | one | not measured |" in render(lacking)
    assert "in 3 of 3 comparisons" in render(lacking)


def test_every_row_of_a_table_has_as_many_cells_as_its_head() -> None:
    for board in (made_up(), made_up(used_for="x"), made_up(measured=())):
        for block in render(board).split("\n\n"):
            if block.startswith("|"):
                assert len({line.count("|") for line in block.splitlines()}) == 1, block
