"""Every bundled experiment runs in seconds with the budget ``smoke``, on made-up data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from emboundary.service import console
from emboundary.training.classifying.config import ClassifierConfig
from emboundary.training.cli import NAME, create_cli
from emboundary.training.experimenting.file import EXPERIMENTS, find_experiment, read_experiment
from emboundary.training.experimenting.plan import load_experiment
from emboundary.training.networks import build_network

BUNDLED = sorted(path.stem for path in EXPERIMENTS.glob("*.toml"))
WITH_BUDGETS = [name for name in BUNDLED if read_experiment(find_experiment(name)).budget]
BUDGETS = ("smoke", "cpu", "full")


@pytest.mark.parametrize("name", WITH_BUDGETS)
def test_an_experiment_runs_with_the_budget_smoke(
    name: str, made_up: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    words = ["experiment", name, "--data", made_up, "--runs", tmp_path / "runs", "--out", tmp_path / "out"]
    words += ["--budget", "smoke", "--device", "cpu", "--threads", "1"]
    assert console.run(create_cli(), NAME, [str(word) for word in words]) == 0
    loaded = load_experiment(find_experiment(name), "smoke")
    record = json.loads((tmp_path / "out" / f"{name}.json").read_text())
    assert [o["variant"] for o in record["outcomes"]] == [v.label for v in loaded.variants]
    assert all(o["flops"] > 0 and o["scores"] for o in record["outcomes"])
    page = (tmp_path / "out" / f"{name}.md").read_text()
    assert all(f"\n| {v.label} |" in page for v in loaded.variants)
    for line in page.splitlines():
        if line.startswith("!["):
            assert (tmp_path / "out" / line.rpartition("(")[2].rstrip(")")).stat().st_size > 5000


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("name", WITH_BUDGETS)
def test_every_budget_of_an_experiment_is_whole(name: str, budget: str) -> None:
    loaded = load_experiment(find_experiment(name), budget)
    assert loaded.note
    assert loaded.question.endswith("?")
    assert len(loaded.variants) > 1
    labels = {v.label for v in loaded.variants}
    assert not loaded.order or len(labels.intersection(loaded.order)) > 1


@pytest.mark.parametrize("name", WITH_BUDGETS)
def test_networks_of_the_full_budget_can_be_built(name: str) -> None:
    for variant in load_experiment(find_experiment(name), "full").variants:
        if isinstance(variant.config, ClassifierConfig):
            channels, size = (3, 32) if variant.config.data.dataset == "cifar10" else (1, 28)
            network = build_network(variant.config.network, channels, 10, size).eval()
            assert network(torch.zeros(1, channels, size, size)).shape == (1, 10)


@pytest.mark.parametrize(
    ("label", "millions"),
    [
        ("All-CNN-C, planar", 1.37),
        ("All-CNN-C, p4", 1.37),
        ("All-CNN-C, p4m", 1.22),
        ("ResNet44, planar", 2.64),
        ("ResNet44, p4m", 2.62),
    ],
)
def test_parameters_are_as_many_as_published(label: str, millions: float) -> None:
    (variant,) = load_experiment(find_experiment("cifar10"), "full", [label]).variants
    assert isinstance(variant.config, ClassifierConfig)
    network = build_network(variant.config.network, 3, 10, 32)
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, rel=0.01)
