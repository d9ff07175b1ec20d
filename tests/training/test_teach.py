from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

from emboundary.service import console
from emboundary.training.cli import NAME, create_cli
from emboundary.training.config import load_config
from emboundary.training.crops.data import load_sections, load_volume
from emboundary.training.learning.runs import load_run
from emboundary.training.scoring.evaluate import map_network


@pytest.fixture
def config(trained: Path, data: Path, tmp_path: Path) -> Path:
    """The configuration of the trained run, to be taught on its volume and on one that nobody labelled."""
    table = json.loads((trained / "config.json").read_text())
    table["data"][0] |= {"soft": "to be mapped", "soft_weight": 0.5}
    unlabelled = {**table["data"][0], "name": "unlabelled", "membranes": None, "raw": str(data / "raw.tif")}
    path = tmp_path / "taught.json"
    path.write_text(json.dumps({**table, "name": "taught", "data": [table["data"][0], unlabelled]}))
    return path


def run(*words: str | Path) -> int:
    return console.run(create_cli(), NAME, [str(word) for word in words])


def test_a_network_learns_from_the_mean_of_its_teachers(
    trained: Path, data: Path, config: Path, tmp_path: Path
) -> None:
    out = tmp_path / "maps"
    twice = ["--teacher", trained, "--teacher", trained / "weights.safetensors"]
    assert run("teach", config, "--data", data, "--out", out, *twice) == 0
    described = load_config(trained / "config.json").data[0]
    expected = map_network(load_run(trained).network, load_sections(data, described), tta=False)  # it is exact
    np.testing.assert_allclose(tifffile.imread(out / "synthetic.tif"), 255 * expected, atol=0.51)
    taught = load_config(out / "taught.json")
    marked, alone = (load_volume(data, volume) for volume in taught.data)
    levels = tifffile.imread(out / "synthetic.tif")[:4]
    np.testing.assert_allclose(marked.learned, 0.5 * 255 * marked.target + 0.5 * levels, atol=0.51)
    np.testing.assert_array_equal(alone.learned, levels)
    assert run("fit", out / "taught.json", "--data", data, "--out", tmp_path / "run", "--threads", "1") == 0


def test_volumes_that_ask_for_no_map_are_refused(
    trained: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data", data, "--out", tmp_path / "maps", "--teacher", trained]
    assert run("teach", trained / "config.json", *words) == 2
    assert "has no volume with `soft`; give it to each volume that teachers are to map" in capsys.readouterr().err
