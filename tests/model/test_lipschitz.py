import math

import pytest
import torch
from case import give_statistics
from torch import Tensor, nn

from emboundary.model.conv import OrbitMaxoutConv2d
from emboundary.model.coset import CosetPool2d
from emboundary.model.group_conv import Fields, GroupBatchNorm2d, GroupConv2d
from emboundary.model.groups import C2, C4
from emboundary.model.inception import Segmenter, SegmenterSpec
from emboundary.model.lipschitz import Reached, Walk, added, lipschitz_bound, through
from emboundary.model.pooling import GlobalAverage, GlobalMax, MaxoutChannels, PoolSpec, make_pool
from emboundary.model.spec import Maxout
from emboundary.model.stability import lipschitz_estimate

DOUBLE = torch.float64
NARROW = {"stem": 8, "a": 8, "b": 8, "c": 8, "blocks": (1, 1, 1), "decoder": 8, "head": 8, "mix": 8}
WINDOWS = [(3, 1, 1), (3, 2, 1), (2, 2, 1), (4, 2, 1), (2, 1, 2), (2, 2, 2), (5, 3, 1)]


def exact_norm(net: nn.Module, shape: tuple[int, ...]) -> float:
    size = math.prod(shape)
    nothing = net(torch.zeros(1, *shape, dtype=DOUBLE))
    matrix = (net(torch.eye(size, dtype=DOUBLE).reshape(size, *shape)) - nothing).flatten(1).detach()
    return float(torch.linalg.matrix_norm(matrix, ord=2))


def test_of_an_affine_network_it_is_the_spectral_norm() -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(3)
    give_statistics(norm)
    net = nn.Sequential(nn.Conv2d(2, 3, 3), norm, nn.AvgPool2d(2), nn.Flatten(), nn.Linear(12, 2)).double().eval()
    bound = lipschitz_bound(net, (2, 6, 6))
    assert bound.constant == pytest.approx(exact_norm(net, (2, 6, 6)), rel=1e-4)
    assert [(s.name, s.kind) for s in bound.stages] == [("0", "Conv2d + BatchNorm2d + AvgPool2d + Flatten + Linear")]


def test_of_a_chain_it_is_the_product_of_its_runs() -> None:
    torch.manual_seed(0)
    first, second = nn.Conv2d(1, 4, 3, padding=1).double(), nn.Conv2d(4, 2, 3).double()
    bound = lipschitz_bound(nn.Sequential(nn.Sequential(first, nn.ReLU()), nn.Dropout(), second), (1, 8, 8))
    product = exact_norm(first, (1, 8, 8)) * exact_norm(second, (4, 8, 8))
    assert bound.constant == pytest.approx(product, rel=1e-3)
    assert [s.name for s in bound.stages] == ["0.0", "2"]


@pytest.mark.parametrize(("kernel", "stride", "dilation"), WINDOWS)
def test_max_pooling_expands_by_the_number_of_windows_of_a_pixel(kernel: int, stride: int, dilation: int) -> None:
    """One bright pixel shows that it does, where it is in the most windows."""
    pool = nn.MaxPool2d(kernel, stride, dilation=dilation)
    pixels = torch.eye(24 * 24, dtype=DOUBLE).reshape(-1, 1, 24, 24)
    grown = float(pool(pixels).flatten(1).norm(dim=1).max())
    assert lipschitz_bound(pool, (1, 24, 24)).constant == pytest.approx(grown)


@pytest.mark.parametrize(
    ("module", "constant"),
    [(nn.ReLU(), 1), (nn.Tanh(), 1), (nn.Sigmoid(), 0.25), (nn.LeakyReLU(0.1), 1), (nn.LeakyReLU(-3.0), 3)],
    ids=["ReLU", "tanh", "sigmoid", "leaky", "steep"],
)
def test_pointwise_functions_expand_by_their_steepest_slope(module: nn.Module, constant: float) -> None:
    assert lipschitz_bound(module, (1, 4, 4)).constant == pytest.approx(constant)
    values = torch.linspace(-4, 4, 8001, dtype=DOUBLE)
    assert float(module(values).diff().abs().max()) / 1e-3 == pytest.approx(constant, rel=1e-3)


BOTH = ("max", "average")


@pytest.mark.parametrize(
    ("pool", "constant"),
    [
        (make_pool(PoolSpec("max"), Fields(regular=2), C4), 1),
        (make_pool(PoolSpec("average"), Fields(regular=2), C4), 0.5),
        (make_pool(PoolSpec("heterogeneous", regimes=BOTH), Fields(regular=2), C4), 1),
        (make_pool(PoolSpec("side-by-side", regimes=BOTH), Fields(regular=2), C4), math.sqrt(1.25)),
        (MaxoutChannels(2), 1),
        (GlobalMax(), 1),
        (GlobalAverage(), 1 / 6),
        (CosetPool2d(C4, C2), 1),
    ],
    ids=["max", "average", "heterogeneous", "side by side", "maxout", "global max", "global average", "cosets"],
)
def test_pooling_is_known(pool: nn.Module, constant: float) -> None:
    assert lipschitz_bound(pool, (8, 6, 6)).constant == pytest.approx(constant, rel=1e-4)
    assert lipschitz_estimate(pool, torch.randn(2, 8, 6, 6)) <= constant * (1 + 1e-5)


def test_group_convolutions_and_copies_are_known() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        OrbitMaxoutConv2d(1, 3, 3, "rotations-8"),
        nn.ReLU(),
        GroupConv2d(C4, Fields(trivial=3), 2, 3),
        GroupBatchNorm2d(C4, 2),
        OrbitMaxoutConv2d(8, 1, 3, "flips", combine="concatenate"),
    )
    give_statistics(net)
    bound = lipschitz_bound(net, (1, 12, 12))
    assert [s.kind for s in bound.stages] == ["Conv2d", "GroupConv2d + GroupBatchNorm2d + OrbitMaxoutConv2d"]
    assert bound.constant >= lipschitz_estimate(net.eval(), torch.randn(4, 1, 12, 12))


@pytest.mark.parametrize(
    ("maxout", "last"), [("none", "max"), ("skip", "max-mean"), ("beside", "max"), ("first", "max"), ("both", "max")]
)
def test_a_segmenter_is_walked_as_it_computes(maxout: Maxout, last: str) -> None:
    """The bound holds along gradients; the walk reaches what the network computes of nothing, every map in place."""
    torch.manual_seed(0)
    net = Segmenter(SegmenterSpec("d4", maxout=maxout, last=last, **NARROW)).eval()
    give_statistics(net)
    bound = lipschitz_bound(net, (1, 8, 8))
    assert bound.constant >= lipschitz_estimate(net, torch.randn(2, 1, 8, 8), steps=5)
    x = torch.randn(1, 1, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(Walk()("", net, Reached(x, 1.0)).x, net(x))


@pytest.mark.parametrize("symmetry", ["plain", "paper"])
def test_the_other_segmenters_have_bounds_too(symmetry: str) -> None:
    torch.manual_seed(0)
    net = Segmenter(SegmenterSpec(symmetry, **NARROW)).eval()
    bound = lipschitz_bound(net, (1, 8, 8))
    assert bound.constant >= lipschitz_estimate(net, torch.randn(2, 1, 8, 8), steps=5)
    assert bound.stages[0].name == "stem.first.conv"


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.inner(x).abs()
        return y


def test_a_module_without_a_rule_is_refused_until_it_has_one() -> None:
    with pytest.raises(TypeError, match=r"^1 is a Residual, for which no Lipschitz constant is known; give it one"):
        lipschitz_bound(nn.Sequential(nn.ReLU(), Residual()), (1, 8, 8))

    @through.register
    def _(module: Residual, name: str, at: Reached, walk: Walk) -> Reached:
        return added(at, walk(f"{name}.inner", module.inner, at).then(torch.abs, 1.0))

    torch.manual_seed(0)
    net = Residual().double()
    bound = lipschitz_bound(net, (1, 8, 8))
    assert bound.constant == pytest.approx(1 + exact_norm(net.inner, (1, 8, 8)), rel=1e-3)


def test_the_network_stays_as_it_is() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    lipschitz_bound(net, (1, 8, 8))
    assert net.training
    assert all(p.requires_grad and p.dtype == torch.float32 for p in net.parameters())
