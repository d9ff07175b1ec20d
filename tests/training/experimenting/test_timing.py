from __future__ import annotations

import pytest

from emboundary.training.config import TrainConfig
from emboundary.training.experimenting.file import find_experiment
from emboundary.training.experimenting.plan import load_experiment
from emboundary.training.experimenting.timing import time_segmenters


def configs(*labels: str) -> dict[str, TrainConfig]:
    found = load_experiment(find_experiment("em-ablation"), "cpu", labels)
    return {v.label: v.config for v in found.variants if isinstance(v.config, TrainConfig)}


def test_times_are_ratios_to_the_first_network_in_each_round() -> None:
    found = time_segmenters(configs("plain", "d4, Gaussian L4 pooling"), rounds=2, side=64)
    assert found["plain"] == [1.0, 1.0]
    assert len(found["d4, Gaussian L4 pooling"]) == 2
    assert min(found["d4, Gaussian L4 pooling"]) > 0


def test_nothing_to_time_is_refused() -> None:
    with pytest.raises(ValueError, match="configs has 0 networks, rounds is 2; give at least one of each"):
        time_segmenters({}, rounds=2)
    with pytest.raises(ValueError, match="configs has 1 networks, rounds is 0; give at least one of each"):
        time_segmenters(configs("plain"), rounds=0)
