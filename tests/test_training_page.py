"""What docs/training.md shows works: its commands are run, with fewer steps, on synthetic volumes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy import ndimage

from emboundary.model.repository import load_model
from emboundary.service.hosting import Models
from emboundary.service.settings import Settings
from emboundary.service.volumes import open_volume
from emboundary.training.cli import create_cli
from emboundary.training.synthetic import membranes, write_stack

PAGE = Path(__file__).parent.parent / "docs" / "training.md"
TEXT = PAGE.read_text(encoding="utf-8")
SHAPE = (6, 64, 72)
SECONDS = 600


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a reader of the page stands: volumes, the page's configuration with two steps, and the commands."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "data").mkdir()
    write_stack(folder / "data", SHAPE, seed=0)
    raw, boundary = membranes(SHAPE, seed=1)
    with h5py.File(folder / "sample_A.hdf", "w") as file:
        ids = np.stack([ndimage.label(section == 0)[0] for section in boundary]).astype(np.uint64)
        for name, voxels in (("volumes/raw", raw), ("volumes/labels/neuron_ids", ids)):
            file.create_dataset(name, data=voxels).attrs["resolution"] = np.array([40.0, 4.0, 4.0])
    (configuration,) = blocks("toml")
    (folder / "from-nothing.toml").write_text(configuration.replace("steps = 4000", "steps = 2"), encoding="utf-8")
    (folder / "fails.md").write_text("Where sections are folded.\n", encoding="utf-8")
    (folder / "bin").mkdir()
    for name, module in (("emboundary", "service"), ("emboundary-train", "training")):
        command = folder / "bin" / name
        program = f"from emboundary.{module}.cli import main; main()"
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -W ignore -c "{program}" "$@"\n', encoding="utf-8")
        command.chmod(0o755)
    return folder


def test_the_commands_work(folder: Path) -> None:
    script = "set -euo pipefail\n" + "\n".join(blocks("sh")).replace("--steps 1000", "--steps 2")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("EMBOUNDARY_")}
    path = os.pathsep.join((str(folder / "bin"), kept["PATH"]))
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env={**kept, "PATH": path, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    for output in ("boundary.zarr", "by-name.tif"):
        with open_volume(folder / output) as volume:
            assert volume.shape == SHAPE
    mine = load_model(folder / "runs" / "mine" / "model")
    assert mine.description.trained_voxel_sizes_nm == ((40.0, 4.0, 4.0),)
    assert mine.description.training[-1].citation == "CREMI, cremi.org"
    assert Models(Settings(model=str(mine.path.parent), device="cpu")).default.description == mine.description
    served = Models(Settings(repository=folder / "models", model="from-nothing", device="cpu")).default
    assert served.description.weights_licence == "CC-BY-4.0"
    assert "\n## Where it fails\n\nWhere sections are folded.\n" in (served.entry.path.parent / "CARD.md").read_text()


def test_every_option_of_fit_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    create_cli()(["fit", "--help"], standalone_mode=False)
    options = set(re.findall(r"(?<![\w-])--[a-z-]+", capsys.readouterr().out))
    listed = set(re.findall(r"(?<![\w-])--[a-z-]+", TEXT))
    assert options - {"--help", "--device", "--threads", "--data", "--out"} <= listed
