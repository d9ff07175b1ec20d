"""Whole networks: logits that do not change with the image's orientation, and where they do."""

from collections.abc import Callable

from case import Case
from torch import nn

from emboundary.model.group_conv import Fields
from emboundary.model.groups import C1, C2, C4, D1, D2, D4, Group
from emboundary.model.symmetric import LEVEL_GROUPS
from emboundary.training.networks import build_network
from emboundary.training.networks.all_cnn import AllCnnConfig
from emboundary.training.networks.densenet import DenseNetConfig
from emboundary.training.networks.parts import Buildable
from emboundary.training.networks.pooling import PoolConfig, PoolingCnnConfig
from emboundary.training.networks.resnet import ResNetConfig
from emboundary.training.networks.rotated_mnist import RotatedMnistConfig
from emboundary.training.networks.scattering import ScatteringConfig

GREY, COLOUR, LOGITS = Fields(trivial=1), Fields(trivial=3), Fields(trivial=4)
SQUARE = (C1, C2, C4, D1, D2, D4)


def _case(
    name: str,
    config: Callable[[Group], Buildable],
    side: int,
    groups: tuple[Group, ...] = SQUARE,
    *,
    inputs: Fields = COLOUR,
    violation: float | None = None,
) -> Case:
    def build(group: Group) -> nn.Module:
        return build_network(config(group), inputs.trivial, LOGITS.trivial, side).eval()

    # a network that breaks the law is one that keeps it, on other sides or with another group
    lawful = violation is None
    return Case(
        name, build, inputs, LOGITS, (side, side), groups, violation, onnx=lawful, gradients=lawful, vector=True
    )


def _rotated(group: Group) -> Buildable:
    return RotatedMnistConfig(group=group.name, filters=6)


def _pooled(group: Group) -> Buildable:
    return RotatedMnistConfig(group=group.name, filters=8, pool="every")


def _all_cnn(group: Group) -> Buildable:
    return AllCnnConfig(group=group.name, filters=8)


def _unnormalised(group: Group) -> Buildable:
    return AllCnnConfig(group=group.name, filters=8, batch_norm=False)


def _resnet(group: Group) -> Buildable:
    return ResNetConfig(group=group.name, blocks=1, filters=(4, 5, 6))


def _orbits(group: Group) -> Buildable:
    return ResNetConfig(group=group.name, blocks=1, filters=(4, 5, 6), classifier="orbits")


def _dense(level: int) -> Callable[[Group], Buildable]:
    return lambda _: DenseNetConfig(level=level, growth=4)


def _pooling(group: Group) -> Buildable:
    pool, second = PoolConfig(kind="side-by-side"), PoolConfig(kind="heterogeneous", regimes=("entropy", "lp"))
    return PoolingCnnConfig(group=group.name, filters=4, pool=pool, second_pool=second)


def _maxout(group: Group) -> Buildable:
    return PoolingCnnConfig(group=group.name, filters=4, activation="maxout", end="max")


def _planar(_: Group) -> Buildable:
    return RotatedMnistConfig(group="C1", filters=4)


TURNED = (C2, C4, D1, D2, D4)
CASES = [
    _case("rotated-MNIST network", _rotated, 28, inputs=GREY),
    _case("rotated-MNIST network, pooled over the group in every layer", _pooled, 28, inputs=GREY),
    _case("rotated-MNIST network, planar", _planar, 28, TURNED, inputs=GREY, violation=0.01),
    _case("rotated-MNIST network over rotations, mirrored", lambda _: _rotated(C4), 28, (D1, D2, D4), violation=0.01),
    _case("All-CNN-C on centred grids", _all_cnn, 17),
    _case("All-CNN-C without batch norm on centred grids", _unnormalised, 13),
    _case("All-CNN-C on even sides, as published", _all_cnn, 16, TURNED, violation=0.01),
    _case("residual network on centred grids", _resnet, 17),
    _case("residual network on even sides, as published", _resnet, 16, TURNED, violation=0.01),
    _case("residual network, classifier of orbits", _orbits, 17, TURNED, violation=0.01),
    _case("pooling network, several regimes", _pooling, 12),
    _case("pooling network, maxout and global maximum", _maxout, 12),
    _case("pooling network where windows do not divide a side", _pooling, 10, TURNED, violation=0.01),
    _case("linear classifier of scattering", lambda _: ScatteringConfig(angles=4), 8, TURNED, violation=0.01),
    _case("DenseNet of symmetry 1", _dense(1), 16, (C1, D1)),
    _case("DenseNet of symmetry 2", _dense(2), 16, (C1, C2, D1, D2)),
    *(_case(f"DenseNet of symmetry {level}", _dense(level), 16) for level in (3, 4)),
    *(
        _case(
            f"DenseNet of symmetry {level}, beyond its group",
            _dense(level),
            16,
            tuple(group for group in SQUARE if not set(group.elements) <= set(LEVEL_GROUPS[level].elements)),
            violation=0.01,
        )
        for level in (0, 1, 2)
    ),
]
