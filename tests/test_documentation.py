"""What the README says in figures is what the committed runs measured."""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
COMPARISON = ROOT / "docs" / "comparison"


def test_readme_shows_the_measured_table():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = re.search(r"<!-- comparison: docs/comparison/table.md -->\n(.*?)<!-- /comparison -->", text, re.DOTALL)
    assert shown is not None, "the README has lost its markers around the comparison table"
    assert shown.group(1) == (COMPARISON / "table.md").read_text(encoding="utf-8")


def test_table_was_measured_on_the_bundled_files():
    models = json.loads((COMPARISON / "table.json").read_text(encoding="utf-8"))["models"]
    folders = {
        "plain-noaug": ROOT / "training" / "baselines",
        **dict.fromkeys(("plain", "paper", "d4"), ROOT / "model" / "zoo"),
    }
    for name, digest in models.items():
        description = json.loads((folders[name] / name / "1" / "description.json").read_text(encoding="utf-8"))
        assert description["sha256"] == digest, f"docs/comparison was not measured on the bundled {name}"


def test_links_in_the_documentation_lead_somewhere():
    for page in (ROOT / "README.md", *ROOT.glob("docs/**/*.md")):
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}"
