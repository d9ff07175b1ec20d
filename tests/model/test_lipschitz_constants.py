"""Constants of poolings and of scattering: no pair of maps is farther apart, and some pair is as far."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from emboundary.model.group_conv import Fields, GroupConv2d
from emboundary.model.groups import C1, D4
from emboundary.model.inception import Segmenter
from emboundary.model.lipschitz import lipschitz_bound
from emboundary.model.pooling import PoolSpec, make_pool
from emboundary.model.pooling_lp import LearnedLpPool2d
from emboundary.model.scattering import InvariantScattering, OrientationFields, Scattering2d
from emboundary.model.spec import SegmenterSpec
from emboundary.model.stability import lipschitz_estimate

DOUBLE = torch.float64
ALONE = torch.tensor([[1.0, 0.0], [0.0, 0.0]], dtype=DOUBLE)
EVEN = torch.ones(2, 2, dtype=DOUBLE)
AGAINST = torch.tensor([[-1.0, 1.0], [1.0, 1.0]], dtype=DOUBLE)


def bound(spec: PoolSpec, side: int = 8) -> float:
    return lipschitz_bound(make_pool(spec, Fields(trivial=1), C1), (1, side, side)).constant


def grown(spec: PoolSpec, at: Tensor, along: Tensor) -> float:
    """Expansion of a small step along a direction, of windows side by side; both are one window."""
    pool = make_pool(spec, Fields(trivial=1), C1).double().eval()
    at, along = (x.repeat(4, 4)[None, None] for x in (at, along))
    step = 1e-6 * along
    with torch.no_grad():
        return float((pool(at + step) - pool(at)).norm() / step.norm())


@pytest.mark.parametrize(
    ("spec", "constant", "at", "along"),
    [
        (PoolSpec("lp", p=1), 1 / 2, EVEN, EVEN),
        (PoolSpec("lp", p=1.5), 1 / 2, EVEN, EVEN),
        (PoolSpec("lp", p=1.999999), 1 / 2, EVEN, EVEN),
        (PoolSpec("lp", p=2), 1 / 2, EVEN, EVEN),
        (PoolSpec("lp", p=4), 4 ** (-1 / 4), ALONE, ALONE),
        (PoolSpec("lp", p=64), 4 ** (-1 / 64), ALONE, ALONE),
        (PoolSpec("learned-lp", p=4), 4 ** (-1 / 4), ALONE, ALONE),
        (PoolSpec("stochastic"), 2, ALONE, AGAINST),
        (PoolSpec("entropy"), 8, ALONE, AGAINST),
    ],
    ids=lambda value: f"{value.kind} {value.p:g}" if isinstance(value, PoolSpec) else "",
)
def test_a_pooling_grows_as_much_as_is_said_and_no_more(
    spec: PoolSpec, constant: float, at: Tensor, along: Tensor
) -> None:
    assert bound(spec) == pytest.approx(constant)
    assert grown(spec, at, along) == pytest.approx(constant, rel=1e-3)
    pool = make_pool(spec, Fields(trivial=1), C1).double().eval()
    torch.manual_seed(0)
    for power in (1, 3, 9):  # ever fewer pixels that count
        assert lipschitz_estimate(pool, torch.randn(32, 1, 8, 8, dtype=DOUBLE) ** power) <= constant * (1 + 1e-9)


def test_weights_that_differ_are_counted_by_the_largest_or_together() -> None:
    spec = PoolSpec("gaussian-lp", kernel=4, stride=3, p=4, sigma=1.0)
    axis = torch.exp(-(torch.arange(4, dtype=DOUBLE) - 1.5).square() / 2)
    weights = torch.outer(axis, axis) / axis.sum() ** 2
    assert bound(spec) == pytest.approx(
        float(weights.max()) ** (1 / 4) * 2
    )  # a pixel is in two windows along each axis
    # p = 1: a weighted mean, whose constant is the length of its weights
    assert bound(replace(spec, p=1)) == pytest.approx(float(weights.norm()) * 2)
    assert bound(replace(spec, p=2)) == pytest.approx(float(weights.max()) ** (1 / 2) * 2)


def test_of_several_exponents_the_worst_counts() -> None:
    pool = LearnedLpPool2d(C1, Fields(trivial=2), 2, 2, p=4)
    with torch.no_grad():
        pool.rho += torch.tensor([-1.0, 3.0])
    largest = float(pool.exponents.detach().max())
    assert lipschitz_bound(pool, (2, 8, 8)).constant == pytest.approx(4 ** (-1 / largest))


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (4, 2), (5, 3)])
def test_a_pixel_in_several_windows_counts_for_each(kernel: int, stride: int) -> None:
    spec = PoolSpec("lp", kernel=kernel, stride=stride, p=4)
    pool = make_pool(spec, Fields(trivial=1), C1).double()
    pixels = torch.eye(24 * 24, dtype=DOUBLE).reshape(-1, 1, 24, 24)
    assert bound(spec, 24) == pytest.approx(float(pool(pixels).flatten(1).norm(dim=1).max()))


def test_scattering_is_a_contraction_and_reflection_repeats_pixels() -> None:
    torch.manual_seed(0)
    for scattering, constant in (
        (Scattering2d(2, 2, 4), 1),
        (Scattering2d(2, 2, 4, padding="reflect"), 2),
        (Scattering2d(2, 3, 4, padding="reflect"), 3),  # 16 pixels, reflected by 8 on each side
    ):
        assert lipschitz_bound(scattering, (2, 16, 16)).constant == constant
        assert lipschitz_estimate(scattering.double(), torch.randn(4, 2, 16, 16, dtype=DOUBLE)) <= constant


def test_what_reads_a_scattering_is_linear() -> None:
    torch.manual_seed(0)
    scattering = Scattering2d(1, 2, 4, stride=1)
    read = OrientationFields(scattering, D4)
    net = nn.Sequential(scattering, read, GroupConv2d(D4, read.fields, 1, 3))
    stages = lipschitz_bound(net, (1, 16, 16)).stages
    assert [stage.kind for stage in stages] == ["OrientationFields + GroupConv2d"]
    assert lipschitz_bound(nn.Sequential(scattering, InvariantScattering(scattering)), (1, 16, 16)).constant <= 1


@pytest.mark.parametrize(
    "choices",
    [{"pooling": kind} for kind in ("lp", "learned-lp", "gaussian-lp", "stochastic", "entropy")]
    + [{"stem_kind": "scattering", "trunk": "D4"}],
    ids=lambda choices: "-".join(choices.values()),
)
def test_every_segmenter_has_a_bound(choices: dict[str, str]) -> None:
    torch.manual_seed(0)
    narrow = SegmenterSpec("custom", stem=8, a=8, b=8, c=8, blocks=(1, 1, 1), decoder=8, head=8, mix=8)
    net = Segmenter(replace(narrow, **choices)).double().eval()
    found = lipschitz_bound(net, (1, 32, 32)).constant
    assert math.isfinite(found)
    assert lipschitz_estimate(net, torch.randn(2, 1, 32, 32, dtype=DOUBLE), steps=5) <= found
