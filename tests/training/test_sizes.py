"""The models come in two sizes: the small one for CPUs, and one of about 1 MFLOP per pixel for GPUs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from emboundary.model.folding import expand_and_fold
from emboundary.model.footprint import flops_per_pixel
from emboundary.model.groups import D4, act, inverse_element
from emboundary.model.inception import STRIDE, Segmenter
from emboundary.training.config import SamplingConfig, TrainConfig, load_config
from emboundary.training.crops.data import LabelledVolume
from emboundary.training.learning.train import train
from emboundary.training.own_data import CONFIGS, NETWORKS

BASE = ("d4-base", "plain-base", "paper-base")


def config_of(name: str) -> TrainConfig:
    return load_config(CONFIGS / f"{name}.toml")


def test_every_network_has_its_configuration() -> None:
    assert {*NETWORKS, "recipe", "gpu", "own", "own-scratch"} <= {path.stem for path in CONFIGS.glob("*.toml")}
    for name in NETWORKS:
        assert config_of(name).name == name


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [*((name, 9e5, 1.1e6) for name in BASE), *((name, 1.0e5, 1.5e5) for name in ("d4", "plain", "paper"))],
)
def test_its_cost_is_what_its_size_promises(name: str, least: float, most: float) -> None:
    network = Segmenter(config_of(name).model.spec()).eval()
    assert least <= flops_per_pixel(expand_and_fold(network), STRIDE, network.spec.channels) <= most


@pytest.mark.parametrize("name", BASE)
def test_both_sizes_learn_from_the_same_and_the_large_one_as_gpus_like_it(name: str) -> None:
    large, small = config_of(name), config_of(name.removesuffix("-base"))
    assert (large.data, large.augment, large.seed) == (small.data, small.augment, small.seed)
    assert (large.start, large.loss.deep) == (None, 0.4), "the small ones go on from weights of their size"
    assert (large.precision, large.channels_last, large.compile) == ("bfloat16", True, True)
    assert large.model.symmetry == small.model.symmetry


def test_the_large_d4_is_exactly_equivariant() -> None:
    torch.manual_seed(0)
    network = Segmenter(config_of("d4-base").model.spec()).double().eval()
    image = torch.randn(1, network.spec.channels, 24, 32, dtype=torch.float64)
    with torch.no_grad():
        upright = network(image).numpy()
        for element in D4.elements:
            turned = network(torch.from_numpy(act(element, image.numpy()).copy())).numpy()
            assert abs(act(inverse_element(element), turned) - upright).max() < 1e-10


@pytest.mark.parametrize("name", BASE)
def test_the_large_one_takes_a_step_on_a_cpu(name: str, volume: LabelledVolume, tmp_path: Path) -> None:
    shipped = config_of(name)
    small = shipped.model_copy(
        update={
            "sampling": SamplingConfig(crop=32, batch=1),
            "optimiser": shipped.optimiser.model_copy(update={"steps": 1}),
            "compile": False,  # its compiler takes minutes, and is the same code on every size
        }
    )
    state = train(small, (volume,), tmp_path, device=torch.device("cpu"))
    assert state.step == 1
    assert 0 < state.losses[0] < 5
