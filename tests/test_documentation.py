"""What the README says in figures is what the committed runs measured."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest

from emboundary.model.card import render_card
from emboundary.model.repository import list_models, load_model
from emboundary.training.comparing.publishing import write_texts
from emboundary.training.comparing.records import Results
from emboundary.training.scoreboard.measuring import begun
from emboundary.training.scoreboard.page import render
from emboundary.training.scoreboard.plan import load_scoreboard
from emboundary.training.scoreboard.records import Board

ROOT = Path(__file__).parent.parent
COMPARISON = ROOT / "docs" / "comparison"
SCOREBOARD = ROOT / "docs" / "scoreboard"


def test_readme_shows_the_measured_table():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = re.search(r"<!-- comparison: docs/comparison/table.md -->\n(.*?)<!-- /comparison -->", text, re.DOTALL)
    assert shown is not None, "the README has lost its markers around the comparison table"
    assert shown.group(1) == (COMPARISON / "table.md").read_text(encoding="utf-8")


def test_readme_shows_what_was_kept_apart():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = re.search(r"<!-- kept apart: docs/comparison/kept_apart.md -->\n(.*?)<!-- /kept apart -->", text, re.DOTALL)
    assert shown is not None, "the README has lost its markers around the figures that were kept apart"
    assert shown.group(1) == (COMPARISON / "kept_apart.md").read_text(encoding="utf-8")


def test_the_comparison_is_rendered_from_its_records(tmp_path):
    shutil.copytree(COMPARISON, tmp_path / "comparison")
    results = Results.model_validate_json((COMPARISON / "results.json").read_bytes())
    write_texts(results, [path.name for path in COMPARISON.glob("*.png")], tmp_path)
    for path in (ROOT / "docs" / "comparison.md", *COMPARISON.glob("*.md"), COMPARISON / "results.json"):
        written = tmp_path / path.relative_to(ROOT / "docs")
        assert written.read_bytes() == path.read_bytes(), f"{path.name} was changed by hand"


def test_the_scoreboard_is_rendered_from_its_records_of_the_bundled_models():
    board = Board.model_validate_json((SCOREBOARD / "bundled.json").read_bytes())
    assert render(board) == (SCOREBOARD / "bundled.md").read_text(encoding="utf-8")
    plan = load_scoreboard(ROOT / "training" / "scoreboards" / "bundled.toml")
    assert begun(plan, "bundled.toml", board) == board, "measure it again"
    assert all(board.of(entry, volume) for entry in board.entries for volume in board.volumes)


@pytest.mark.parametrize("name", list_models())
def test_the_cards_are_rendered_from_the_descriptions_and_say_what_the_figures_stand_on(name):
    entry = load_model(name)
    card = (entry.path.parent / "CARD.md").read_text(encoding="utf-8")
    assert card.startswith(render_card(entry.description).rstrip("\n"))
    _, _, stands = card.partition("\n## What the figures stand on\n\n")
    said, _, _ = stands.partition("\n## ")
    for figure in entry.description.validation:
        assert figure.protocol.partition(",")[0] in said
    assert "they also chose the recipe" in said


def test_the_comparison_was_measured_on_the_bundled_weights():
    timing = json.loads((COMPARISON / "results.json").read_text(encoding="utf-8"))["timing"]
    measured = {row["model"]: row["weights_sha256"] for row in timing["rows"]}
    assert {"d4", "plain"} <= measured.keys()
    for name, digest in measured.items():
        weights = ROOT / "model" / "zoo" / name / "1" / "weights.safetensors"
        assert hashlib.sha256(weights.read_bytes()).hexdigest() == digest, (
            f"the comparison is not of the bundled {name}"
        )


def test_links_in_the_documentation_lead_somewhere():
    for page in (ROOT / "README.md", *ROOT.glob("docs/**/*.md")):
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}"
