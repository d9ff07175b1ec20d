from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from emboundary.training.experimenting.file import EXPERIMENTS, read_experiment


def test_the_page_says_what_the_records_say() -> None:
    script = Path(__file__).with_name("experiments_page.py")
    ended = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, f"docs/experiments.md is out of date: run python {script.name}\n{ended.stderr}"


def test_every_experiment_with_budgets_is_on_the_page() -> None:
    page = (Path(__file__).parents[2] / "docs" / "experiments.md").read_text(encoding="utf-8")
    for path in EXPERIMENTS.glob("*.toml"):
        if read_experiment(path).budget:
            assert f"experiment {path.stem} " in page or f"`{path.stem}`" in page
