import numpy as np
import pytest
import torch
from case import IMAGE, MIXED, give_statistics
from torch import nn

from emboundary.model.coset import coset_max
from emboundary.model.fields import turn_pixels
from emboundary.model.group_conv import Fields, GroupBatchNorm2d, GroupConv2d, GroupDeconv2d, act_on_fields, turn
from emboundary.model.groups import C1, C4, C6, D4, D6, GROUPS, Group, act


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
        GroupConv2d(D4, MIXED, 3, 3, bias=True),
        GroupDeconv2d(D4, MIXED, 3, 2, bias=True),
        GroupConv2d(C6, MIXED, 3, 5, bias=True),
    ],
    ids=[
        "convolution",
        "strided convolution",
        "deconvolution",
        "convolution with bias",
        "deconvolution with bias",
        "hexagonal convolution",
    ],
)
def test_the_expanded_layer_computes_the_same(layer: GroupConv2d | GroupDeconv2d) -> None:
    x = torch.randn(2, MIXED.channels(layer.filters.group), 8, 8)
    plain = layer.plain()
    torch.testing.assert_close(plain(x), layer(x))
    assert torch.equal(plain.weight, layer.expand())


def test_one_bias_serves_the_orbit() -> None:
    conv = GroupConv2d(D4, IMAGE, 2, 3, bias=True)
    assert conv.bias is not None
    assert conv.bias.shape == (2,)
    flat = conv(torch.zeros(1, 1, 4, 4))[0, :, 0, 0]
    assert torch.equal(flat, conv.bias.repeat_interleave(8))
    assert GroupConv2d(D4, IMAGE, 2, 3).bias is None


@pytest.mark.parametrize("group", [C6, D6], ids=["C6", "D6"])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(1, 1, None), (3, 1, None), (5, 1, None), (3, 1, 0), (5, 2, 0)]
)
@torch.no_grad()
def test_law_on_a_hexagon_of_pixels(group: Group, kernel: int, stride: int, padding: int | None) -> None:
    """For maps that are zero outside the hexagon, the two sides agree inside it, layer behind layer."""
    torch.manual_seed(7)
    side = 13
    lifting = GroupConv2d(group, Fields(trivial=2), 2, 3, bias=True).double()
    norm = _trained_norm(group).double()
    conv = GroupConv2d(group, Fields(2, 1), 3, kernel, stride=stride, padding=padding).double()

    def network(x: torch.Tensor) -> torch.Tensor:
        lifted = _in_hexagon(group, norm(lifting(x)).relu())
        joined = torch.cat([lifted, coset_max(lifted, group.order)[:, :1]], dim=1)
        return _in_hexagon(group, conv(joined))

    x = _in_hexagon(group, torch.randn(2, 2, side, side, dtype=torch.float64))
    upright = network(x)
    assert upright.abs().max() > 0.1
    for place in range(group.order):
        turned = network(turn_pixels(group, place, x))
        torch.testing.assert_close(
            turned, act_on_fields(group, place, upright, Fields(3)), rtol=0, atol=1e-12 * float(upright.abs().max())
        )


def _in_hexagon(group: Group, x: torch.Tensor) -> torch.Tensor:
    """Zero outside the hexagon that the group keeps."""
    inside = torch.zeros(x.shape[-1] ** 2, dtype=x.dtype)
    inside[group.kernel_taps(x.shape[-1])] = 1
    return x * inside.reshape(x.shape[-2:])


def test_filters_of_a_hexagonal_lattice_are_hexagons() -> None:
    conv = GroupConv2d(C6, IMAGE, 2, 3)
    assert conv.filters.trivial.shape == (2, 1, 7)
    bank = conv.expand()
    assert bank.shape == (12, 1, 3, 3)
    assert not bank[:, :, [0, 2], [0, 2]].any()
    assert bank.count_nonzero() == 12 * 7


def test_pixels_of_a_hexagonal_lattice_need_a_square_image() -> None:
    with pytest.raises(ValueError, match=r"^x is 5 x 7 pixels; C6 acts on as many rows as columns$"):
        turn_pixels(C6, 1, torch.zeros(1, 1, 5, 7))


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
    for build in (lambda: GroupConv2d(D4, inputs, outputs, 3), lambda: GroupDeconv2d(D4, inputs, outputs, 2)):
        with pytest.raises(ValueError, match=rf"outputs {outputs}; a convolution needs at least one field of each$"):
            build()


@pytest.mark.parametrize("stride", [-2, 0, 1, 3])
def test_an_odd_deconvolution_or_one_that_does_not_enlarge_is_refused(stride: int) -> None:
    with pytest.raises(ValueError, match=rf"^stride is {stride}; a symmetric deconvolution without output padding"):
        GroupDeconv2d(D4, IMAGE, 1, stride)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel": 0}, r"^kernel is 0; it must be a number of pixels from 1$"),
        ({"kernel": 3, "stride": 0}, r"^stride is 0; it must be a number of pixels from 1$"),
        ({"kernel": 3, "padding": -1}, r"^padding is -1; it must be 0 or a number of pixels, or None for kernel // 2$"),
    ],
)
def test_a_geometry_that_does_not_exist_is_refused(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GroupConv2d(D4, IMAGE, 1, **arguments)


def test_even_kernels_of_a_hexagonal_lattice_are_refused() -> None:
    for build in (lambda: GroupConv2d(C6, IMAGE, 1, 4), lambda: GroupDeconv2d(C6, IMAGE, 1, 2)):
        with pytest.raises(
            ValueError, match=r"^kernel is 4, and group 'C6' does not map the entries of an even kernel"
        ):
            build()


def test_fields_are_counted_from_channels() -> None:
    assert Fields.from_channels(D4, 24) == Fields(regular=3)
    assert Fields.from_channels(D4, 24).channels(D4) == 24


@pytest.mark.parametrize("channels", [-8, 0, 12])
def test_channels_that_do_not_divide_are_refused(channels: int) -> None:
    message = rf"^channels is {channels}; regular fields over D4 have 8 channels each: give a positive multiple of 8$"
    with pytest.raises(ValueError, match=message):
        Fields.from_channels(D4, channels)


def test_a_number_of_fields_below_zero_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^trivial is -1; a number of fields is 0 or more$"):
        Fields(regular=2, trivial=-1)


def test_batch_norm_of_other_channels_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^x has 12 channels; 2 orbits of 8 channels each are 16$"):
        GroupBatchNorm2d(D4, 2)(torch.zeros(1, 12, 2, 2))
