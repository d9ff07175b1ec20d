"""Fixtures of the training's tests: a tiny configuration, synthetic membranes, and one run of it all."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from emboundary.model.inception import Segmenter, Symmetry
from emboundary.service import console
from emboundary.training.cli import NAME, create_cli
from emboundary.training.config import TrainConfig, parse_table
from emboundary.training.crops.data import LabelledVolume
from emboundary.training.synthetic import membranes, write_stack

MakeConfig = Callable[..., TrainConfig]

# Six sections; the first four are for training.
SHAPE = (6, 64, 72)

TINY = """
name = "tiny"

[model]
symmetry = "d4"
stem = 8
a = 8
b = 8
c = 8
blocks = [1, 1, 1]
decoder = 8
head = 8
mix = 8

[[data]]
name = "synthetic"
raw = "raw.tif"
membranes = "membranes.tif"
sections = [0, 4]
voxel_size_nm = [50.0, 4.6, 4.6]
citation = "made up"

[sampling]
crop = 32
batch = 2

[augment]
symmetry = true
contrast = 0.2
brightness = 0.2
noise = 0.1

[optimiser]
steps = 6
learning_rate = 4e-3
ema_steps = 3
"""


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def table() -> dict[str, Any]:
    """The tiny configuration as a table, to be changed."""
    return tomllib.loads(TINY)


@pytest.fixture(scope="session")
def make_config() -> MakeConfig:
    """The tiny configuration with some dotted keys set: ``make_config({"optimiser.steps": 3})``."""

    def make(changes: dict[str, Any] | None = None) -> TrainConfig:
        table = tomllib.loads(TINY)
        for dotted, value in (changes or {}).items():
            *parents, key = dotted.split(".")
            reduce(lambda inner, parent: inner[parent], parents, table)[key] = value
        return parse_table(table, origin="of a test")

    return make


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``raw.tif`` and ``membranes.tif``."""
    folder = tmp_path_factory.mktemp("data")
    write_stack(folder, SHAPE, seed=0)
    return folder


@pytest.fixture(scope="session")
def volume() -> LabelledVolume:
    """Synthetic membranes in memory."""
    raw, target = membranes((2, 64, 72), seed=1)
    mean, std = float(raw.mean()), float(raw.std())
    normalised: NDArray[np.float32] = ((raw - mean) / std).astype(np.float32)
    return LabelledVolume("synthetic", normalised, target > 0, mean, std)


@pytest.fixture(scope="session")
def network(make_config: MakeConfig) -> Callable[[Symmetry], Segmenter]:
    """Seeded tiny networks in evaluation mode, as they are before training."""

    def make(symmetry: Symmetry) -> Segmenter:
        torch.manual_seed(0)
        return Segmenter(make_config({"model.symmetry": symmetry}).model.spec()).eval()

    return make


@pytest.fixture(scope="session")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of one run of the command ``fit`` on the tiny configuration, whose file stands beside it."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "tiny.toml").write_text(TINY, encoding="utf-8")
    words = ["fit", str(folder / "tiny.toml"), "--data", str(data), "--out", str(folder / "run"), "--threads", "1"]
    assert console.run(create_cli(), NAME, [*words, "--device", "cpu"]) == 0
    return folder / "run"


@pytest.fixture(scope="session")
def published(trained: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of that run's model, made by the command ``export``."""
    zoo = tmp_path_factory.mktemp("zoo")
    words = ["export", str(trained), "--to", str(zoo), "--summary", "a tiny one", "--data", str(data)]
    assert console.run(create_cli(), NAME, [*words, "--sections", "4:6"]) == 0
    return zoo / "tiny" / "1"
