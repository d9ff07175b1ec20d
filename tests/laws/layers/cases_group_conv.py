"""Group convolutions, their batch norm, and what stands between them."""

from collections.abc import Callable

from case import IMAGE, MIXED, REGULAR, THREE, Case, Function
from torch import nn

from emboundary.model.group_conv import (
    CosetMeanConv2d,
    Fields,
    GroupBatchNorm2d,
    GroupConv2d,
    GroupDeconv2d,
    coset_max,
)
from emboundary.model.groups import C2, C4, D1, D2, D4, Group

NOT_TRIVIAL = (C2, C4, D1, D2, D4)


def _conv(
    kernel: int, inputs: Fields, *, stride: int = 1, padding: int | None = None, bias: bool = False
) -> Callable[[Group], nn.Module]:
    return lambda group: GroupConv2d(group, inputs, 3, kernel, stride=stride, padding=padding, bias=bias)


def _coset_max(group: Group) -> nn.Module:
    return Function(lambda x: coset_max(x, group.order))


CASES = [
    *(Case(f"lifting {k}x{k}", _conv(k, IMAGE), IMAGE, THREE) for k in (1, 3, 5)),
    *(Case(f"group convolution {k}x{k}", _conv(k, REGULAR), REGULAR, THREE) for k in (1, 3, 5)),
    *(Case(f"group convolution {k}x{k} unpadded", _conv(k, REGULAR, padding=0), REGULAR, THREE) for k in (2, 3, 4)),
    *(Case(f"group convolution {k}x{k} padded to one pixel more", _conv(k, MIXED), MIXED, THREE) for k in (2, 4)),
    Case("lifting with bias", _conv(3, IMAGE, bias=True), IMAGE, THREE),
    Case("group convolution with bias", _conv(3, MIXED, bias=True), MIXED, THREE),
    Case("group convolution of orbits beside invariant maps", _conv(3, MIXED), MIXED, THREE),
    Case("2x2 stride 2 on even sides", _conv(2, REGULAR, stride=2, padding=0), REGULAR, THREE),
    Case("4x4 stride 2 padding 1 on even sides", _conv(4, MIXED, stride=2, padding=1), MIXED, THREE),
    Case("3x3 stride 2 padding 1 on odd sides", _conv(3, REGULAR, stride=2), REGULAR, THREE, sides=(9, 13)),
    Case("3x3 stride 3 unpadded", _conv(3, REGULAR, stride=3, padding=0), REGULAR, THREE, sides=(9, 12)),
    Case("5x5 stride 2 with bias on odd sides", _conv(5, MIXED, stride=2, bias=True), MIXED, THREE, sides=(9, 13)),
    *(Case(f"deconvolution x{s}", lambda g, s=s: GroupDeconv2d(g, MIXED, 3, s), MIXED, THREE) for s in (2, 4)),
    Case("deconvolution x2 with bias", lambda g: GroupDeconv2d(g, MIXED, 3, 2, bias=True), MIXED, THREE),
    Case("batch norm, training", lambda g: GroupBatchNorm2d(g, 2).train(), REGULAR, REGULAR),
    Case("batch norm, evaluation", lambda g: GroupBatchNorm2d(g, 2).eval(), REGULAR, REGULAR),
    Case("maximum over the group", _coset_max, REGULAR, Fields(trivial=2)),
    Case("linear map of means over the group", lambda g: CosetMeanConv2d(g, 2, 3), REGULAR, Fields(trivial=3)),
    Case("ReLU", lambda _: nn.ReLU(), REGULAR, REGULAR),
    Case("GELU", lambda _: nn.GELU(), MIXED, MIXED),
    Case("2x2 max pooling on even sides", lambda _: nn.MaxPool2d(2), MIXED, MIXED),
    Case("3x3 average pooling", lambda _: nn.AvgPool2d(3, 1, 1), MIXED, MIXED),
    Case(
        "3x3 stride 2 on even sides",
        _conv(3, REGULAR, stride=2),
        REGULAR,
        THREE,
        groups=NOT_TRIVIAL,
        violation=0.01,
    ),
    Case(
        "4x4 stride 2 on odd sides",
        _conv(4, REGULAR, stride=2, padding=1),
        REGULAR,
        THREE,
        sides=(9, 13),
        groups=NOT_TRIVIAL,
        violation=0.01,
    ),
    Case(
        "2x2 pooling on odd sides",
        lambda _: nn.MaxPool2d(2),
        REGULAR,
        REGULAR,
        sides=(9, 13),
        groups=NOT_TRIVIAL,
        violation=0.01,
    ),
    Case(
        "maximum over the group, then an ordinary convolution",
        lambda g: nn.Sequential(_coset_max(g), nn.Conv2d(2, 3, 3, padding=1)),
        REGULAR,
        Fields(trivial=3),
        groups=NOT_TRIVIAL,
        violation=0.01,
    ),
    Case(
        "a scale and a bias for each channel of an orbit",
        lambda g: nn.Conv2d(2 * g.order, 2 * g.order, 1, groups=2 * g.order),
        REGULAR,
        REGULAR,
        groups=NOT_TRIVIAL,
        violation=0.01,
    ),
    Case(
        "batch norm of single channels",
        lambda g: nn.BatchNorm2d(2 * g.order).eval(),
        REGULAR,
        REGULAR,
        groups=NOT_TRIVIAL,
        violation=0.01,
    ),
]
