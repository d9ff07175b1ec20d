"""The command, from its TOML file to its page, on tiny models and synthetic membranes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from emboundary.service import console
from emboundary.training.cli import NAME, create_cli
from emboundary.training.scoreboard import measuring
from emboundary.training.scoreboard.records import Board

TABLE = """
title = "Tiny ones"
config = "tiny.toml"
reference = "folder + 8x"
used_for = "nothing"

[[entries]]
label = "folder"
model = "{folder}"

[[entries]]
label = "folder + 8x"
model = "{folder}"
passes = 8
"""
MORE = """
[[entries]]
label = "weights"
model = "{weights}"
"""


@pytest.fixture
def file(trained: Path, published: Path, tmp_path: Path) -> Path:
    """A scoreboard of an exported model with 1 pass and 8."""
    tiny = (trained.parent / "tiny.toml").read_text().replace("[0, 4]", "[0, 4]\nvalidation = [4, 6]")
    (tmp_path / "tiny.toml").write_text(tiny)
    (tmp_path / "board.toml").write_text(TABLE.format(folder=published))
    return tmp_path / "board.toml"


def run(file: Path, data: Path, out: Path) -> int:
    words = ["scoreboard", str(file), "--data", str(data), "--out", str(out), "--device", "cpu"]
    return console.run(create_cli(), NAME, words)


def board_of(out: Path) -> Board:
    return Board.model_validate_json((out / "board.json").read_bytes())


def test_models_and_weights_are_scored_and_nothing_is_measured_twice(
    file: Path, trained: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    assert run(file, data, out) == 0
    first = board_of(out)
    assert [(m.volume, m.sections, m.chosen_on, m.passes) for m in first.measured] == [
        ("synthetic", (4, 6), (0, 4), 1),
        ("synthetic", (4, 6), (0, 4), 8),
    ]
    page = (out / "board.md").read_bytes()

    # Weights alone are exported and give the scores of the model that was exported from them; only they are measured.
    alone = file.read_text()
    file.write_text(alone + MORE.format(weights=trained / "weights.safetensors"))
    opened: list[str] = []
    measure = measuring.measure
    monkeypatch.setattr(measuring, "measure", lambda *words: opened.append(words[1].label) or measure(*words))
    assert run(file, data, out) == 0
    assert opened == ["weights"]
    same, _, weights = board_of(out).measured
    assert weights.sha256 != same.sha256
    for score in ("roc_auc", "average_precision", "v_rand", "cremi", "boundary", "joining", "parameters"):
        assert getattr(weights, score) == pytest.approx(getattr(same, score), abs=1e-4), score

    # Without it the page is the one from before, though the record is kept.
    file.write_text(alone)
    assert run(file, data, out) == 0
    assert opened == ["weights"]
    assert (out / "board.md").read_bytes() == page
    assert len(board_of(out).measured) == 3


def test_an_interrupted_run_goes_on_behind_what_it_kept(
    file: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = measuring.measure
    done: list[int] = []

    def interrupted(*words: object) -> object:
        if words[1].passes == 8 and not done:  # type: ignore[attr-defined]
            done.append(8)
            raise KeyboardInterrupt
        return measure(*words)  # type: ignore[arg-type]

    monkeypatch.setattr(measuring, "measure", interrupted)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        raise SystemExit(run(file, data, tmp_path / "out"))
    assert [m.passes for m in board_of(tmp_path / "out").measured] == [1]
    assert "| folder + 8x | not measured |" in (tmp_path / "out" / "board.md").read_text()
    monkeypatch.setattr(measuring, "measure", measure)
    assert run(file, data, tmp_path / "out") == 0
    assert [m.passes for m in board_of(tmp_path / "out").measured] == [1, 8]


def test_records_of_another_protocol_are_measured_again(file: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(file, data, out) == 0
    right = board_of(out)
    stale = json.loads((out / "board.json").read_text())
    for record in stale["measured"]:
        record |= {"protocol": 0, "roc_auc": 0.123}
    (out / "board.json").write_text(json.dumps(stale))
    assert run(file, data, out) == 0
    assert [m.roc_auc for m in board_of(out).measured] == [m.roc_auc for m in right.measured]


def test_sections_that_a_model_learned_from_are_not_scored(
    file: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = (tmp_path / "tiny.toml").read_text().replace("sections = [0, 4]", "sections = [4, 6]")
    (tmp_path / "tiny.toml").write_text(tiny.replace("validation = [4, 6]", "validation = [3, 4]"))
    assert run(file, data, tmp_path / "out") == 1
    assert (
        "tiny, version 1 was trained on sections 0:4 of synthetic, and is to be scored on 3:4; give sections that it "
        "has never seen"
    ) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ('reference = "folder + 8x"', 'reference = "x"', "the entries are folder, folder + 8x; x is none of them"),
        ('label = "folder + 8x"', 'label = "folder"', "labels are folder, folder; they must differ"),
        ('used_for = "nothing"', 'used_for = "nothing"\nvolumes = ["vnc"]', "are synthetic; vnc is none of them"),
        ('used_for = "nothing"', 'used_for = { vnc = "x" }', "used_for speaks of vnc, scored are synthetic;"),
        ('used_for = "nothing"', "", "used_for is missing; it has no default"),
        ("passes = 8", "passes = 4", "entries.1.passes is 4: "),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(
    file: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], before: str, after: str, told: str
) -> None:
    file.write_text(file.read_text().replace(before, after))
    assert run(file, data, tmp_path / "out") == 1
    assert told in capsys.readouterr().err


def test_weights_that_are_not_there_are_named(
    file: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(file.read_text() + MORE.format(weights="none.safetensors"))
    assert run(file, data, tmp_path / "out") == 1
    assert "none.safetensors cannot be read: No such file or directory" in capsys.readouterr().err
