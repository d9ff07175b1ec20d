"""One law for every layer: ``layer(L_g x) = L_g layer(x)``, for every element, and named cases where it fails."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from emboundary.model.conv import KernelOrbitConv2d, d4_elements, flips, rotations
from emboundary.model.group_conv import (
    Fields,
    GroupBatchNorm2d,
    GroupConv2d,
    GroupDeconv2d,
    act_on_fields,
    coset_max,
    turn,
)
from emboundary.model.groups import C1, C2, C4, D4, GROUPS, Group, act
from emboundary.model.inception import Inception, Maxout, Reduction, SegmenterSpec, Stem, Upsample

Layer = Callable[[Tensor], Tensor]
IMAGE = Fields(trivial=1)


@dataclass(frozen=True)
class Case:
    """A layer with the kind of map it takes and gives, and the sides (y, x) that its law is stated for."""

    name: str
    build: Callable[[Group], Layer]
    inputs: Fields
    outputs: Fields
    sides: tuple[int, int] = (8, 12)
    groups: tuple[Group, ...] = (C1, C2, C4, D4)


def _conv(kernel: int, inputs: Fields, *, stride: int = 1, padding: int | None = None) -> Callable[[Group], Layer]:
    return lambda group: GroupConv2d(group, inputs, 3, kernel, stride=stride, padding=padding)


def _maxout(table: np.ndarray) -> Callable[[Group], Layer]:
    def build(_: Group) -> Layer:
        conv = KernelOrbitConv2d(1, 3, 3, table)
        return nn.Sequential(conv, _Function(lambda x: coset_max(x, conv.copies)))

    return build


class _Function(nn.Module):
    def __init__(self, function: Layer) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def _trained_norm(group: Group) -> GroupBatchNorm2d:
    norm = GroupBatchNorm2d(group, 2).eval()
    _give_statistics(norm)
    return norm


class _StemOutput(nn.Module):
    """One of a stem's two maps: 0 for the trunk, 1 for the decoder."""

    def __init__(self, maxout: Maxout, output: int) -> None:
        super().__init__()
        self.stem, self.output = Stem(SegmenterSpec("d4", maxout=maxout)), output

    def forward(self, x: Tensor) -> Tensor:
        chosen: Tensor = self.stem(x)[self.output]
        return chosen


def _stem(maxout: Maxout, output: int) -> Callable[[Group], Layer]:
    return lambda _: _StemOutput(maxout, output).eval()


REGULAR, MIXED, THREE = Fields(regular=2), Fields(regular=2, trivial=3), Fields(regular=3)
LAWFUL = [
    *(Case(f"lifting {k}x{k}", _conv(k, IMAGE), IMAGE, THREE) for k in (1, 3, 5)),
    *(Case(f"group convolution {k}x{k}", _conv(k, REGULAR), REGULAR, THREE) for k in (1, 3, 5)),
    *(Case(f"group convolution {k}x{k} unpadded", _conv(k, REGULAR, padding=0), REGULAR, THREE) for k in (2, 3, 4)),
    Case("group convolution of orbits beside invariant maps", _conv(3, MIXED), MIXED, THREE),
    Case("2x2 stride 2 on even sides", _conv(2, REGULAR, stride=2, padding=0), REGULAR, THREE),
    Case("4x4 stride 2 padding 1 on even sides", _conv(4, MIXED, stride=2, padding=1), MIXED, THREE),
    Case("3x3 stride 2 padding 1 on odd sides", _conv(3, REGULAR, stride=2), REGULAR, THREE, sides=(9, 13)),
    *(Case(f"deconvolution x{s}", lambda g, s=s: GroupDeconv2d(g, MIXED, 3, s), MIXED, THREE) for s in (2, 4)),
    Case("batch norm, training", lambda g: GroupBatchNorm2d(g, 2).train(), REGULAR, REGULAR),
    Case("batch norm, evaluation", _trained_norm, REGULAR, REGULAR),
    Case("maximum over the group", lambda g: lambda x: coset_max(x, g.order), REGULAR, Fields(trivial=2)),
    Case("ReLU", lambda _: nn.ReLU(), REGULAR, REGULAR),
    Case("2x2 max pooling on even sides", lambda _: nn.MaxPool2d(2), MIXED, MIXED),
    Case("3x3 average pooling", lambda _: nn.AvgPool2d(3, 1, 1), MIXED, MIXED),
    Case("maxout over 2 rotations", _maxout(rotations(2, 3)), IMAGE, Fields(trivial=3), groups=(C1, C2)),
    Case("maxout over 4 rotations", _maxout(rotations(4, 3)), IMAGE, Fields(trivial=3), groups=(C1, C2, C4)),
    Case("maxout over 8 rotations", _maxout(rotations(8, 3)), IMAGE, Fields(trivial=3), groups=(C1, C2, C4)),
    Case("maxout over the 8 elements", _maxout(d4_elements(3)), IMAGE, Fields(trivial=3)),
    Case("Inception", lambda g: Inception(g, MIXED, 2 * g.order), MIXED, Fields(regular=8)),
    Case("Inception, shallow", lambda g: Inception(g, MIXED, 2 * g.order, deep=False), MIXED, Fields(regular=6)),
    Case("Reduction on even sides", lambda g: Reduction(g, REGULAR, 2 * g.order), REGULAR, Fields(regular=4)),
    Case("Upsample x4", lambda g: Upsample(g, MIXED, 2 * g.order, 4), MIXED, REGULAR),
    Case("Stem none, trunk", _stem("none", 0), IMAGE, REGULAR, groups=(D4,)),
    Case("Stem first, trunk", _stem("first", 0), IMAGE, REGULAR, groups=(D4,)),
    Case("Stem both, trunk", _stem("both", 0), IMAGE, Fields(trivial=2), groups=(D4,)),
    Case("Stem skip, to the decoder", _stem("skip", 1), IMAGE, Fields(trivial=2), groups=(D4,)),
    Case("Stem beside, to the decoder", _stem("beside", 1), IMAGE, Fields(2, 2), groups=(D4,)),
]

LAWLESS = [
    Case("the published flip set, which is not closed", _maxout(flips(3)), IMAGE, Fields(trivial=3), groups=(C2, D4)),
    Case("maxout over 4 rotations, under mirrors", _maxout(rotations(4, 3)), IMAGE, Fields(trivial=3), groups=(D4,)),
    Case("3x3 stride 2 on even sides", _conv(3, REGULAR, stride=2), REGULAR, THREE, groups=(C2, C4, D4)),
    Case(
        "4x4 stride 2 on odd sides",
        _conv(4, REGULAR, stride=2, padding=1),
        REGULAR,
        THREE,
        sides=(9, 13),
        groups=(C2, C4, D4),
    ),
    Case("2x2 pooling on odd sides", lambda _: nn.MaxPool2d(2), REGULAR, REGULAR, sides=(9, 13), groups=(C2, C4, D4)),
    Case(
        "maximum over the group, then an ordinary convolution",
        lambda g: nn.Sequential(_Function(lambda x: coset_max(x, g.order)), nn.Conv2d(2, 3, 3, padding=1)),
        REGULAR,
        Fields(trivial=3),
        groups=(C2, C4, D4),
    ),
    Case(
        "batch norm of single channels",
        lambda g: nn.BatchNorm2d(2 * g.order).eval(),
        REGULAR,
        REGULAR,
        groups=(C2, C4, D4),
    ),
]


def _give_statistics(module: nn.Module) -> None:
    """Give every batch norm statistics as if it had been trained."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for values, low, high in ((norm.running_mean, -0.5, 0.5), (norm.running_var, 0.5, 2.0)):
                assert values is not None
                values.uniform_(low, high)
            nn.init.uniform_(norm.weight, 0.5, 2.0)
            nn.init.uniform_(norm.bias, -0.5, 0.5)


def _violation(case: Case, group: Group) -> float:
    """Largest ``|layer(L_g x) - L_g layer(x)|`` over all elements, relative to the largest value."""
    torch.manual_seed(7)
    layer = case.build(group)
    if isinstance(layer, nn.Module):
        _give_statistics(layer)
        layer = layer.double()
    x = torch.randn(2, case.inputs.channels(group), *case.sides, dtype=torch.float64)
    with torch.no_grad():
        upright = layer(x)
        assert upright.shape[1] == case.outputs.channels(group)
        worst = 0.0
        for place in range(group.order):
            wanted = act_on_fields(group, place, upright, case.outputs)
            got = layer(act_on_fields(group, place, x, case.inputs))
            worst = max(worst, float((got - wanted).abs().max()) if got.shape == wanted.shape else np.inf)
    return worst / float(upright.abs().max())


def _pairs(cases: list[Case]) -> pytest.MarkDecorator:
    pairs = [pytest.param(case, group, id=f"{case.name}-{group.name}") for case in cases for group in case.groups]
    return pytest.mark.parametrize(("case", "group"), pairs)


@_pairs(LAWFUL)
def test_layer_commutes_with_every_element(case: Case, group: Group) -> None:
    assert _violation(case, group) < 1e-12


@_pairs(LAWLESS)
def test_law_fails_where_it_is_said_to_fail(case: Case, group: Group) -> None:
    assert _violation(case, group) > 0.01


@pytest.mark.parametrize("element", D4.elements)
def test_tensors_are_turned_as_arrays_are(element: int) -> None:
    image = torch.randn(2, 3, 4, 5)
    np.testing.assert_array_equal(turn(element, image).numpy(), act(element, image.numpy()))


@pytest.mark.parametrize("group", GROUPS.values(), ids=GROUPS)
def test_action_on_fields_is_an_action(group: Group) -> None:
    x = torch.randn(1, MIXED.channels(group), 4, 6)
    for a in range(group.order):
        for b in range(group.order):
            twice = act_on_fields(group, a, act_on_fields(group, b, x, MIXED), MIXED)
            assert torch.equal(twice, act_on_fields(group, int(group.product[a, b]), x, MIXED))


def test_lifting_is_correlation_with_every_turned_filter() -> None:
    conv = GroupConv2d(D4, IMAGE, 2, 3)
    bank = conv.filters.expand().detach()
    for field in range(2):
        base = bank[field * 8]
        for place, element in enumerate(D4.elements):
            assert torch.equal(bank[field * 8 + place], turn(element, base))


def test_over_the_trivial_group_a_group_convolution_is_the_ordinary_one() -> None:
    conv = GroupConv2d(C1, Fields(regular=2, trivial=1), 4, 3)
    weight = torch.cat([conv.filters.regular, conv.filters.trivial], dim=1).unflatten(-1, (3, 3))
    x = torch.randn(1, 3, 6, 6)
    torch.testing.assert_close(conv(x), nn.functional.conv2d(x, weight, padding=1))


def test_group_convolution_has_as_many_parameters_as_its_filters_before_expansion() -> None:
    conv = GroupConv2d(D4, MIXED, 3, 3)
    assert sum(p.numel() for p in conv.parameters()) == 3 * (2 * 8 + 3) * 9
    assert conv.filters.expand().numel() == 8 * 3 * (2 * 8 + 3) * 9


@pytest.mark.parametrize(
    "layer",
    [
        GroupConv2d(D4, MIXED, 3, 3),
        GroupConv2d(C4, MIXED, 3, 4, stride=2, padding=1),
        GroupDeconv2d(D4, MIXED, 3, 2),
    ],
    ids=["convolution", "strided convolution", "deconvolution"],
)
def test_the_expanded_layer_computes_the_same(layer: GroupConv2d | GroupDeconv2d) -> None:
    x = torch.randn(2, MIXED.channels(layer.filters.group), 8, 8)
    torch.testing.assert_close(layer.plain()(x), layer(x))


def test_the_expanded_kernel_orbit_computes_the_same() -> None:
    layer = KernelOrbitConv2d(2, 3, 3, rotations(8, 3))
    x = torch.randn(2, 2, 8, 8)
    torch.testing.assert_close(layer.plain()(x), layer(x))


@pytest.mark.parametrize("group", GROUPS.values(), ids=GROUPS)
def test_folded_batch_norm_is_its_evaluation(group: Group) -> None:
    norm = _trained_norm(group)
    scale, shift = norm.scale_and_shift()
    x = torch.randn(2, 2 * group.order, 4, 6)
    torch.testing.assert_close(norm(x), scale[:, None, None] * x + shift[:, None, None])


def test_batch_norm_shares_its_statistics_over_the_orbit() -> None:
    norm = GroupBatchNorm2d(D4, 2)
    x = torch.randn(3, 16, 4, 6) + torch.arange(16.0)[:, None, None]
    norm(x)
    fields = x.unflatten(1, (2, 8))
    assert norm.running_mean is not None
    torch.testing.assert_close(norm.running_mean, 0.1 * fields.mean(dim=(0, 2, 3, 4)))


def test_eight_rotations_move_the_ring_one_step_at_a_time() -> None:
    kernel = torch.tensor([[1, 2, 3], [8, 0, 4], [7, 6, 5]]).flatten()
    turned = kernel[torch.as_tensor(rotations(8, 3)[1])].reshape(3, 3)
    assert turned.tolist() == [[2, 3, 4], [1, 0, 5], [8, 7, 6]]


@pytest.mark.parametrize("angles", [2, 4])
def test_fewer_rotations_are_among_the_eight(angles: int) -> None:
    eight = {row.tobytes() for row in rotations(8, 3)}
    assert {row.tobytes() for row in rotations(angles, 3)} <= eight


@pytest.mark.parametrize(("angles", "kernel"), [(8, 5), (3, 3)])
def test_rotations_that_do_not_exist_are_refused(angles: int, kernel: int) -> None:
    with pytest.raises(ValueError, match=rf"^angles is {angles} for a {kernel} x {kernel} kernel; 2 or 4 rotations"):
        rotations(angles, kernel)


def test_a_table_of_another_kernel_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^table has 9 entries; a 5 x 5 kernel has 25$"):
        KernelOrbitConv2d(1, 1, 5, flips(3))


@pytest.mark.parametrize(("inputs", "outputs"), [(Fields(), 1), (IMAGE, 0)])
def test_a_convolution_without_fields_is_refused(inputs: Fields, outputs: int) -> None:
    with pytest.raises(ValueError, match=rf"outputs {outputs}; a convolution needs at least one field of each$"):
        GroupConv2d(D4, inputs, outputs, 3)


def test_an_odd_deconvolution_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^stride is 3; a symmetric deconvolution without output padding needs an"):
        GroupDeconv2d(D4, IMAGE, 1, 3)
