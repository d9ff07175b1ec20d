from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from emboundary.training.networks import NetworkConfig, build_network

ADAPTER: TypeAdapter[Any] = TypeAdapter(NetworkConfig)

SMALL: dict[str, dict[str, Any]] = {
    "Z2CNN": {"kind": "rotated-mnist-cnn", "group": "C1", "filters": 4, "dropout": 0.3},
    "P4CNN": {"kind": "rotated-mnist-cnn", "group": "C4", "filters": 2},
    "P4CNN pooled": {"kind": "rotated-mnist-cnn", "group": "C4", "filters": 4, "pool": "every"},
    "All-CNN": {"kind": "all-cnn-c", "filters": 4},
    "All-CNN p4m": {"kind": "all-cnn-c", "group": "D4", "filters": 4, "batch_norm": False},
    "ResNet": {"kind": "resnet", "blocks": 1, "filters": [4, 8, 8]},
    "ResNet p4m": {"kind": "resnet", "group": "D4", "blocks": 2, "filters": [1, 2, 3], "classifier": "orbits"},
    "DenseNet": {"kind": "densenet", "level": 2, "growth": 4},
    "pooling": {"kind": "pooling-cnn", "filters": 4, "pool": {"kind": "side-by-side"}, "end": "max"},
    "scattering": {"kind": "scattering-linear", "angles": 4},
}


def network(table: dict[str, Any], channels: int = 1, size: int = 32) -> nn.Module:
    torch.manual_seed(0)
    return build_network(ADAPTER.validate_python(table), channels, 5, size)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("channels", [1, 3])
def test_images_give_logits_of_every_class(name: str, channels: int) -> None:
    images = torch.randn(2, channels, 32, 32)
    logits = network(SMALL[name], channels).eval()(images)
    assert logits.shape == (2, 5)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("name", SMALL)
def test_a_network_learns(name: str) -> None:
    torch.manual_seed(1)
    labels = torch.arange(10) % 5
    images = torch.randn(10, 1, 32, 32) + torch.linspace(-1, 1, 5)[labels, None, None, None]
    net = network(SMALL[name] | ({"dropout_image": 0.0, "dropout": 0.0} if "All" in name else {}))
    optimiser = torch.optim.Adam(net.parameters(), 0.003)
    losses = []
    for _ in range(20):
        loss = nn.functional.cross_entropy(net(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert min(losses[-5:]) < losses[0] - 0.1


@pytest.mark.parametrize("name", SMALL)
def test_a_network_is_its_configuration_and_its_seed(name: str) -> None:
    config = ADAPTER.validate_python(SMALL[name])
    again = ADAPTER.validate_json(ADAPTER.dump_json(config))
    assert again == config
    one, other = network(SMALL[name]).state_dict(), network(ADAPTER.dump_python(again)).state_dict()
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"kind": "perceptron"}, "does not match any of the expected tags"),
        ({"kind": "densenet", "level": 5}, "less than or equal to 4"),
        ({"kind": "densenet", "depth": 3}, "Extra inputs are not permitted"),
        ({"kind": "resnet", "filters": [4, 8]}, "Field required"),
        ({"kind": "all-cnn-c", "group": "C5"}, "group is 'C5'"),
        ({"kind": "pooling-cnn", "pool": {"kind": "lp", "p": 0.5}}, "p is 0.5"),
        ({"kind": "pooling-cnn", "pieces": 1}, "greater than or equal to 2"),
        ({"kind": "scattering-linear", "order": 3}, "Input should be 1 or 2"),
    ],
)
def test_a_configuration_that_breaks_a_rule_is_refused(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ADAPTER.validate_python(table)


@pytest.mark.parametrize(
    ("table", "size", "message"),
    [
        (SMALL["P4CNN"], 27, "^size is 27; rotated-mnist-cnn needs an even side of at least 22 pixels, 28 is that of"),
        (SMALL["P4CNN"], 20, "^size is 20; rotated-mnist-cnn needs"),
        (SMALL["All-CNN"], 3, "^size is 3; all-cnn-c halves it twice and needs at least 4 pixels$"),
        (SMALL["ResNet"], 3, "^size is 3; resnet halves it twice and needs at least 4 pixels$"),
        (SMALL["DenseNet"], 28, "^size is 28; densenet halves it three times: give a multiple of 8$"),
        (SMALL["pooling"], 2, "^size is 1 where a pooling of 2 pixels is; give larger images$"),
        (
            SMALL["scattering"],
            30,
            "^size is 30; scattering of 2 scales keeps every 4th pixel: give a multiple of 4",
        ),
        (SMALL["scattering"] | {"angles": 5}, 32, "^angles is 5"),
    ],
)
def test_images_that_do_not_fit_are_refused(table: dict[str, Any], size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        network(table, size=size)


def test_the_last_kernel_of_the_rotated_mnist_network_covers_what_is_left() -> None:
    kernels = {size: network(SMALL["P4CNN"], size=size)[-3].filters.kernel for size in (22, 28, 32)}
    assert kernels == {22: 1, 28: 4, 32: 6}


def test_both_ends_of_the_pooling_network_pool_all_pixels() -> None:
    images = torch.randn(2, 1, 32, 32)
    by_mean, by_max = (network({"kind": "pooling-cnn", "end": end}).eval() for end in ("average", "max"))
    maps = by_mean[:-1](images)
    torch.testing.assert_close(by_mean(images), maps.mean(dim=(2, 3)))
    torch.testing.assert_close(by_max(images), maps.amax(dim=(2, 3)))


def test_scattering_normalises_its_coefficients_in_training() -> None:
    front = network(SMALL["scattering"])[:2].train()
    coefficients = front(torch.randn(8, 1, 32, 32)).detach().numpy()
    np.testing.assert_allclose(coefficients.mean(axis=(0, 2, 3)), 0, atol=1e-4)
    # batch norm adds its epsilon, which tells where a coefficient is small
    assert (np.abs(coefficients.std(axis=(0, 2, 3)) - 1) < 0.3).all()
