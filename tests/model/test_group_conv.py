import numpy as np
import pytest
import torch
from case import IMAGE, MIXED, give_statistics
from torch import nn

from emboundary.model.group_conv import Fields, GroupBatchNorm2d, GroupConv2d, GroupDeconv2d, act_on_fields, turn
from emboundary.model.groups import C1, C4, D4, GROUPS, Group, act


def _trained_norm(group: Group) -> GroupBatchNorm2d:
    norm = GroupBatchNorm2d(group, 2).eval()
    give_statistics(norm)
    return norm


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


@pytest.mark.parametrize(("inputs", "outputs"), [(Fields(), 1), (IMAGE, 0)])
def test_a_convolution_without_fields_is_refused(inputs: Fields, outputs: int) -> None:
    with pytest.raises(ValueError, match=rf"outputs {outputs}; a convolution needs at least one field of each$"):
        GroupConv2d(D4, inputs, outputs, 3)


def test_an_odd_deconvolution_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^stride is 3; a symmetric deconvolution without output padding needs an"):
        GroupDeconv2d(D4, IMAGE, 1, 3)
