"""What is published of scattering, and what it must be as a layer; the law is among ``laws/layers``."""

import io
import logging
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from emboundary.model.equivariance import equivariance_error
from emboundary.model.footprint import count_parameters, flops_per_pixel, receptive_field
from emboundary.model.group_conv import Fields, act_on_fields
from emboundary.model.groups import C1, C2, C4, D1, D2, D4, GROUPS, Group
from emboundary.model.scattering import InvariantScattering, OrientationFields, Scattering2d
from emboundary.model.wavelets import littlewood_paley, low_pass, morlet_bank


def dense(scales: int, angles: int = 4, order: int = 2) -> Scattering2d:
    return Scattering2d(1, scales, angles, order, stride=1).double()


def picture(side: int = 48) -> Tensor:
    """A disc on noise whose amplitude falls as 1 / frequency; mean 0, deviation 1."""
    f = np.fft.fftfreq(side)
    radius = np.hypot(f[:, None], f)
    radius[0, 0] = 1
    noise = np.fft.ifft2(np.fft.fft2(np.random.default_rng(0).standard_normal((side, side))) / radius).real
    y, x = np.mgrid[:side, :side]
    image = noise / noise.std() + 2 * (np.hypot(y - 0.4 * side, x - 0.5 * side) < 0.2 * side)
    return torch.as_tensor((image - image.mean()) / image.std())[None, None]


def share(scattering: Scattering2d, x: Tensor, order: int) -> float:
    """Of the image's energy, what the coefficients of an order hold."""
    of_order = [k for k, path in enumerate(scattering.paths) if len(path) == order]
    return float(scattering(x)[:, of_order].square().sum() / x.square().sum())


@pytest.mark.parametrize(("scales", "angles", "order"), [(1, 2, 2), (2, 8, 1), (2, 8, 2), (3, 4, 2)])
@pytest.mark.parametrize("channels", [1, 3])
def test_it_has_one_map_for_each_path_and_nothing_to_learn(channels: int, scales: int, angles: int, order: int) -> None:
    scattering = Scattering2d(channels, scales, angles, order)
    paths = 1 + angles * scales + (order == 2) * angles**2 * scales * (scales - 1) // 2
    assert scattering.coefficients == len(set(scattering.paths)) == paths
    assert scattering(torch.zeros(2, channels, 17, 24)).shape == (2, channels * paths, 17 // 2**scales, 24 // 2**scales)
    assert count_parameters(scattering) == 0
    assert scattering.state_dict() == {}


def test_channels_are_scattered_one_by_one() -> None:
    x = torch.randn(1, 3, 16, 16)
    alone = torch.cat([Scattering2d(1, 2, 4)(x[:, [c]]) for c in range(3)], dim=1)
    torch.testing.assert_close(Scattering2d(3, 2, 4)(x), alone)


def test_a_grating_is_found_at_its_scale_and_orientation() -> None:
    scattering = dense(2, 8, order=1)
    y, x = torch.meshgrid(*(torch.arange(48.0, dtype=torch.float64),) * 2, indexing="ij")
    for (scale, orientation), *_ in scattering.paths[1:]:
        theta = np.pi * orientation / 8
        grating = torch.cos(0.75 * np.pi / 2**scale * (x * np.cos(theta) - y * np.sin(theta)))
        middle = scattering(grating[None, None])[0, 1:, 24, 24]
        assert scattering.paths[1 + int(middle.argmax())] == ((scale, orientation),)


@pytest.mark.parametrize(("scales", "angles"), [(1, 2), (2, 4), (2, 8), (3, 8)])
def test_no_frequency_gains_energy(scales: int, angles: int) -> None:
    gain = dense(scales, angles).gain
    banks = [morlet_bank(j, angles, 1) for j in range(scales)]
    # finer than, and no multiple of, the grid that the gain was computed on
    low, passed = littlewood_paley(low_pass(scales, 1), banks, 509)
    assert (low + gain**2 * passed).max() < 1 + 1e-3
    assert ((low + passed).max() > 1.01) == (gain < 1)


@pytest.mark.parametrize(("scales", "angles", "stride"), [(2, 4, 1), (3, 8, 4), (3, 8, 8)])
def test_it_is_a_contraction(scales: int, angles: int, stride: int) -> None:
    scattering = Scattering2d(1, scales, angles, stride=stride).double()
    torch.manual_seed(0)
    x = picture(32)
    for size in (1e-3, 1.0):
        moved = x + size * torch.randn_like(x)
        assert (scattering(moved) - scattering(x)).norm() <= (moved - x).norm()
    assert scattering(x).norm() <= x.norm()
    # an image of the one frequency that passes whole
    whole = torch.ones(1, 1, 128, 128, dtype=torch.float64)
    assert scattering(whole).norm() <= whole.norm()
    assert (scattering(whole).norm() * stride / whole.norm()) > 0.95


@pytest.mark.parametrize("scales", [2, 3])
def test_energy_falls_with_the_order(scales: int) -> None:
    """Of what is not in the average: that holds as much as the image has of low frequencies."""
    scattering, x = dense(scales), picture()
    averaged, first, second = (share(scattering, x, order) for order in range(3))
    assert first > 10 * second > 0
    assert 0.6 < averaged + first + second < 1


def test_order_two_gains_energy_with_the_scale() -> None:
    assert share(dense(3), picture(), 2) > 2 * share(dense(2), picture(), 2)


@pytest.mark.parametrize("pixels", [1, 2, 4])
def test_a_translation_changes_less_the_larger_the_scale(pixels: int) -> None:
    x = picture()
    moved = x.roll(pixels, dims=3)
    changes = [float((s(moved) - s(x)).norm() / s(x).norm()) for s in map(dense, (1, 2, 3))]
    assert changes[0] > 1.3 * changes[1] > 1.3**2 * changes[2]


def test_a_dilation_changes_it_in_proportion_where_it_moves_the_fourier_modulus_away() -> None:
    side = 96
    u = torch.arange(side, dtype=torch.float64) - (side - 1) / 2

    def packet(dilation: float) -> Tensor:
        y, x = torch.meshgrid(u * (1 - dilation), u * (1 - dilation), indexing="ij")
        return (torch.exp(-(x**2 + y**2) / (2 * 14.0**2)) * torch.cos(2.2 * x))[None, None]

    def change(of: Callable[[Tensor], Tensor], dilation: float) -> float:
        return float((of(packet(dilation)) - of(packet(0.0))).norm() / of(packet(0.0)).norm())

    scattering, dilations = Scattering2d(1, 3, 4).double(), (0.01, 0.02, 0.04, 0.08)
    slopes = [change(scattering, dilation) / dilation for dilation in dilations]
    assert max(slopes) < 1.2 * min(slopes) < 3
    assert change(lambda x: torch.fft.fft2(x).abs(), 0.08) > 1.2 > 5 * change(scattering, 0.08)


@pytest.mark.parametrize(("scales", "stride"), [(1, 1), (1, 2), (2, 1), (2, 4), (3, 2)])
def test_an_output_sees_exactly_as_far_as_its_radius(scales: int, stride: int) -> None:
    scattering = Scattering2d(1, scales, 4, stride=stride).double()
    side = 2 * (scattering.radius // stride + 2) * stride
    x = torch.randn(1, 1, side, side, dtype=torch.float64, requires_grad=True)
    place = side // 2 // stride
    scattering(x)[0, :, place, place].sum().backward()
    assert x.grad is not None
    for axis in (2, 3):
        seen = x.grad[0, 0].abs().sum(dim=3 - axis).nonzero().flatten()
        centre = place * stride + (stride - 1) / 2
        assert max(centre - int(seen[0]), int(seen[-1]) - centre) == pytest.approx(scattering.radius, abs=0.5)


def test_a_tile_with_a_halo_is_the_whole() -> None:
    scattering = Scattering2d(1, 2, 4, stride=2).double()
    x, halo = picture(96), 28
    assert scattering.radius <= halo
    tile = scattering(x[..., 32 - halo : 48 + halo, 48 - halo : 64 + halo])
    inner = tile[..., halo // 2 : -halo // 2, halo // 2 : -halo // 2]
    torch.testing.assert_close(inner, scattering(x)[..., 16:24, 24:32], rtol=0, atol=1e-14)


def test_the_exported_file_has_its_receptive_field_and_ordinary_layers_alone() -> None:
    scattering, file = Scattering2d(1, 2, 2, stride=1), io.BytesIO()
    net = nn.Sequential(scattering, OrientationFields(scattering, D4))
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's remarks about itself
        program = torch.onnx.export(net, (torch.zeros(1, 1, 32, 40),), dynamo=True, opset_version=20, verbose=False)
    assert program is not None
    program.save(file)
    model = onnx.load_from_string(file.getvalue())
    assert {node.op_type for node in model.graph.node} == {
        *("Add", "Clip", "Concat", "Conv", "Gather", "Mul", "Slice", "Sqrt")
    }
    assert receptive_field(model).radius == scattering.radius


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_gradients_are_finite_where_the_modulus_is_zero(level: float) -> None:
    x = torch.full((1, 1, 16, 16), level, requires_grad=True)
    Scattering2d(1, 2, 4)(x).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_reflection_takes_the_edge_of_zeros_away() -> None:
    bright = torch.ones(1, 1, 32, 32)
    zero, reflected = (Scattering2d(1, 2, 8, padding=padding)(bright) for padding in ("zero", "reflect"))
    assert zero.shape == reflected.shape
    assert zero[:, 1:].max() > 0.05
    assert reflected[:, 1:].max() < 0.3 * zero[:, 1:].max()


FIELDS = [(C1, 0, 25), (C2, 0, 25), (C4, 12, 1), (D1, 8, 9), (D2, 8, 9), (D4, 10, 1)]


@pytest.mark.parametrize(("group", "regular", "trivial"), FIELDS, ids=[group.name for group, *_ in FIELDS])
def test_orientations_are_the_fields_of_a_group(group: Group, regular: int, trivial: int) -> None:
    """Of J = 2, L = 4, where mirrors leave the orientations 0 and 2 and the transpose leaves 1 and 3."""
    scattering = Scattering2d(2, 2, 4)
    read = OrientationFields(scattering, group)
    assert read.fields == Fields(2 * regular, 2 * trivial)
    y = torch.randn(1, 50, 3, 4)
    for place, element in enumerate(group.elements):
        assert torch.equal(read(scattering.act(element, y)), act_on_fields(group, place, read(y), read.fields))
    kept = read(torch.arange(50.0)[None, :, None, None]).unique()
    assert len(kept) == 50


@pytest.mark.parametrize("group", GROUPS.values(), ids=GROUPS)
def test_the_action_on_its_output_is_an_action(group: Group) -> None:
    scattering, y = Scattering2d(1, 2, 6), torch.randn(1, 49, 3, 4)
    for a in group.elements:
        for b in group.elements:
            both = D4.elements[D4.product[a, b]]
            assert torch.equal(scattering.act(a, scattering.act(b, y)), scattering.act(both, y))


def test_invariants_are_means_over_joint_turns_and_mirrors() -> None:
    scattering = Scattering2d(2, 3, 8)
    invariants = InvariantScattering(scattering)
    y = scattering(torch.randn(1, 2, 32, 32))
    found = invariants(y).unflatten(1, (2, -1))
    assert found.shape == (1, 2, 1 + 3 + 5 * 3, 4, 4)
    first = y.unflatten(1, (2, -1))[:, :, 9:17].mean(dim=2)
    torch.testing.assert_close(found[:, :, 2], first)


def test_invariants_hardly_change_under_turns_between_the_quarter_turns() -> None:
    u = torch.linspace(-1, 1, 64, dtype=torch.float64)
    y, x = torch.meshgrid(u, u, indexing="ij")

    def bars(angle: float) -> Tensor:
        along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        return (torch.exp(-8 * (x**2 + y**2)) * torch.cos(24 * along + 6 * across))[None, None]

    scattering = dense(2)
    invariants = nn.Sequential(scattering, InvariantScattering(scattering).double())
    changes = [
        float((of(bars(np.pi / 16)) - of(bars(0.0))).mean((2, 3)).norm() / of(bars(0.0)).mean((2, 3)).norm())
        for of in (scattering, invariants)
    ]
    assert changes[0] > 0.2
    assert changes[1] < 0.02


def test_the_published_cost_is_that_of_its_convolutions() -> None:
    """J = 2, L = 4, full resolution: wavelets of 7 x 7 and 11 x 11, and the average along each axis."""
    scattering = Scattering2d(1, 2, 4, stride=1)
    first, second, average = 8 * 7**2 + 8 * 11**2, 4 * 8 * 11**2, 2 * 25 * 11
    assert flops_per_pixel(scattering, 1) == 2 * (first + second + average)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((0, 2, 8), {}, r"^channels is 0; an image has at least 1$"),
        ((1, 0, 8), {}, r"^scales is 0; a scattering needs at least 1$"),
        ((1, -1, 8), {}, r"^scales is -1; a scattering needs at least 1$"),
        ((1, 2, 0), {}, r"^angles is 0; it must be even and at least 2, so that quarter turns permute the angles$"),
        ((1, 2, 5), {}, r"^angles is 5; it must be even"),
        ((1, 2, 8, 3), {}, r"^order is 3; it must be 1 or 2 \(a third modulus finds next to no energy\)$"),
        ((1, 2, 8), {"stride": 3}, r"^stride is 3; it must be a power of two from 1 to 2\^scales = 4$"),
        ((1, 2, 8), {"stride": 8}, r"^stride is 8; it must be a power of two from 1 to 2\^scales = 4$"),
        ((1, 2, 8), {"stride": 0}, r"^stride is 0; it must be a power of two"),
        ((1, 2, 8), {"padding": "same"}, r"^padding is 'same'; it must be one of zero, reflect$"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments: Any, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Scattering2d(*arguments, **options)


def test_images_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^x has 3 channels; this scattering was made for channels=1$"):
        Scattering2d(1, 2, 4)(torch.zeros(1, 3, 16, 16))
    with pytest.raises(ValueError, match=r"^x is 16 x 4; to be reflected by 2\^scales = 4 pixels its sides must be la"):
        Scattering2d(1, 2, 4, padding="reflect")(torch.zeros(1, 1, 16, 4))


def test_published_settings_obey_the_law() -> None:
    """J = 2, L = 8 on digits of 28 x 28, with every element; the law's other settings are among ``laws/layers``."""
    scattering = Scattering2d(1, 2, 8).double()
    errors = equivariance_error(
        scattering,
        torch.randn(1, 1, 28, 28, dtype=torch.float64),
        D4,
        act_in=lambda group, place, x: act_on_fields(group, place, x, Fields(trivial=1)),
        act_out=lambda group, place, y: scattering.act(group.elements[place], y),
    )
    assert errors.worst.relative_max < 1e-12
