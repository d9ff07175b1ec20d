"""What the README says in figures is what the committed runs measured."""

from __future__ import annotations

import hashlib
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
