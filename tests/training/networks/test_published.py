"""The papers' own networks: sizes as published, and which of the published ones are misprints."""

from itertools import pairwise

import pytest
import torch

from emboundary.model.footprint import count_parameters
from emboundary.model.pooling import PoolSpec
from emboundary.training.networks import NetworkConfig, build_network
from emboundary.training.networks.all_cnn import AllCnnConfig
from emboundary.training.networks.densenet import DenseNetConfig
from emboundary.training.networks.pooling import PoolConfig
from emboundary.training.networks.resnet import ResNetConfig
from emboundary.training.networks.rotated_mnist import RotatedMnistConfig

Z2CNN = RotatedMnistConfig(group="C1", filters=20, dropout=0.3)
P4CNN = RotatedMnistConfig(group="C4", filters=10)
P4CNN_POOLED = RotatedMnistConfig(group="C4", filters=20, pool="every")


def _parameters(config: NetworkConfig, channels: int = 3, size: int = 32) -> int:
    return count_parameters(build_network(config, channels, 10, size))


@pytest.mark.parametrize(
    ("config", "millions"),
    [
        (AllCnnConfig(group="C1", filters=96), 1.37),
        (AllCnnConfig(group="C4", filters=48), 1.37),
        (AllCnnConfig(group="D4", filters=32), 1.22),
        (AllCnnConfig(group="D4", filters=32, batch_norm=False), 1.22),
        (ResNetConfig(group="C1", filters=(32, 64, 128)), 2.64),
        (ResNetConfig(group="D4", filters=(11, 23, 45)), 2.62),
        (ResNetConfig(group="D4", filters=(11, 23, 45), classifier="orbits"), 2.62),
        (ResNetConfig(group="C1", blocks=4, filters=(71, 142, 284)), 7.24),
        (ResNetConfig(group="D4", blocks=4, filters=(25, 50, 100)), 7.17),
    ],
)
def test_parameters_are_those_published_within_one_percent(config: NetworkConfig, millions: float) -> None:
    assert _parameters(config) == pytest.approx(millions * 1e6, rel=0.01)


def test_the_wide_networks_as_printed_are_not_of_the_published_size() -> None:
    planar = _parameters(ResNetConfig(blocks=4, filters=(71, 142, 248)))
    p4m = _parameters(ResNetConfig(group="D4", blocks=4, filters=(50, 100, 150)))
    assert planar == pytest.approx(6.0e6, rel=0.01)
    assert p4m == pytest.approx(19.4e6, rel=0.01)


def test_the_three_networks_for_rotated_mnist_have_about_as_many_parameters() -> None:
    planar, p4, pooled = (_parameters(config, 1, 28) for config in (Z2CNN, P4CNN, P4CNN_POOLED))
    # the same filters, pooled over their rotations or not; p4's last layers see four times the maps with half of them
    assert planar == pooled == 20 * 9 + 5 * 20 * 20 * 9 + 10 * 20 * 16 + 6 * 2 * 20 + 10
    assert p4 == 10 * 9 + 5 * 10 * 40 * 9 + 10 * 40 * 16 + 6 * 2 * 10 + 10


@pytest.mark.parametrize(("level", "published"), [(0, 92520), (1, 62280), (2, 42120), (3, 32040), (4, 21960)])
def test_densenet_has_the_published_parameters_with_a_growth_of_40(level: int, published: int) -> None:
    """Level 0 is published as 95,520, which no number of kernels gives together with the others."""
    assert _parameters(DenseNetConfig(level=level)) == published


def test_densenet_of_the_published_table_has_5760_kernels() -> None:
    counts = [_parameters(DenseNetConfig(level=level, growth=30)) for level in range(5)]
    assert [a - b for a, b in pairwise(counts)] == [5760 * n for n in (9 - 6, 6 - 4, 4 - 3, 3 - 2)]
    assert counts[0] == 5760 * 9 + 4 * 30 + 123 * 10 + 10


def test_p4cnn_does_not_see_by_how_many_quarter_turns_a_digit_is_turned() -> None:
    torch.manual_seed(0)
    digits = torch.randn(2, 1, 28, 28)
    for config in (P4CNN, P4CNN_POOLED):
        net = build_network(config, 1, 10, 28).eval()
        for turns in (1, 2, 3):
            torch.testing.assert_close(net(torch.rot90(digits, turns, (2, 3))), net(digits), rtol=1e-4, atol=1e-5)
    planar = build_network(Z2CNN, 1, 10, 28).eval()
    assert (planar(torch.rot90(digits, 1, (2, 3))) - planar(digits)).abs().max() > 0.1


def test_dropout_stands_where_the_maps_are_not_pooled() -> None:
    layers = [type(layer).__name__ for layer in build_network(Z2CNN, 1, 10, 28)]
    behind_units = ["Dropout", "MaxPool2d", "Dropout", "Dropout", "Dropout", "Dropout"]
    assert layers == [name for place in behind_units for name in ("Sequential", place)] + [
        "GroupConv2d",
        "OrbitMaximum",
        "Flatten",
    ]


def test_a_pooling_has_the_same_defaults_in_a_configuration() -> None:
    assert PoolConfig().spec() == PoolSpec()
