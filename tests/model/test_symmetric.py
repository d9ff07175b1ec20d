"""Symmetric kernels: the forms of the paper's table, shared parameters, and what is refused."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from emboundary.model.groups import act
from emboundary.model.symmetric import LEVEL_GROUPS, SymmetricConv2d, symmetry_classes

# Table 1 of the paper, letters in reading order.
TABLE = ["abcdefghi", "abadedghg", "abadedaba", "ababebaba", "aaaaeaaaa"]


@pytest.mark.parametrize("level", range(5))
def test_the_classes_of_3x3_kernels_are_those_of_the_paper(level: int) -> None:
    letters = sorted(set(TABLE[level]), key=TABLE[level].index)
    assert symmetry_classes(3, level).tolist() == [letters.index(letter) for letter in TABLE[level]]


@pytest.mark.parametrize(
    ("kernel", "numbers"),
    [
        (1, (1, 1, 1, 1, 1)),
        (2, (4, 2, 1, 1, 1)),
        (3, (9, 6, 4, 3, 2)),
        (4, (16, 8, 4, 3, 2)),
        (5, (25, 15, 9, 6, 4)),
        (7, (49, 28, 16, 10, 5)),
    ],
)
def test_how_many_numbers_a_kernel_has(kernel: int, numbers: tuple[int, ...]) -> None:
    for level, count in enumerate(numbers):
        conv = SymmetricConv2d(2, 3, kernel, level)
        assert [p.shape for p in conv.parameters()] == [(3, 2, count)]
        assert sorted(set(symmetry_classes(kernel, level).tolist())) == list(range(count))


@pytest.mark.parametrize("level", range(5))
@pytest.mark.parametrize("kernel", [2, 3, 5, 6])
def test_every_kernel_is_left_alone_by_its_group(kernel: int, level: int) -> None:
    classes = symmetry_classes(kernel, level).reshape(kernel, kernel)
    for element in LEVEL_GROUPS[level].elements:
        np.testing.assert_array_equal(act(element, classes), classes)


@pytest.mark.parametrize("kernel", [3, 4, 7, 9])
def test_rings_of_level_4_are_unions_of_the_orbits_of_level_3(kernel: int) -> None:
    orbits, rings = symmetry_classes(kernel, 3), symmetry_classes(kernel, 4)
    assert len(set(zip(orbits.tolist(), rings.tolist(), strict=True))) == orbits.max() + 1


def test_rings_are_one_pixel_wide() -> None:
    classes = symmetry_classes(7, 4)
    for y in range(7):
        for x in range(7):
            on_axis = 3 * 7 + 3 + min(3, round(math.hypot(y - 3, x - 3)))
            if round(math.hypot(y - 3, x - 3)) <= 3:
                assert classes[7 * y + x] == classes[on_axis]
            else:
                assert classes[7 * y + x] == classes[0]


def test_numbers_of_a_level_1_layer() -> None:
    """Against the sum written out: (x_left + x_right) a + x_middle b, row by row."""
    conv = SymmetricConv2d(1, 1, 3, 1, padding=0, bias=True)
    a, b, d, e, g, h = torch.arange(1.0, 7.0)
    with torch.no_grad():
        conv.weight.copy_(torch.arange(1.0, 7.0).reshape(1, 1, 6))
        assert conv.bias is not None
        conv.bias.fill_(0.5)
    x = torch.randn(1, 1, 5, 6)
    rows = [
        (x[..., i : 3 + i, :-2] + x[..., i : 3 + i, 2:]) * outer + x[..., i : 3 + i, 1:-1] * middle
        for i, (outer, middle) in enumerate([(a, b), (d, e), (g, h)])
    ]
    torch.testing.assert_close(conv(x), sum(rows) + 0.5)


def test_a_class_has_the_sum_of_its_entries_gradients() -> None:
    """Table 2 of the paper, backward."""
    conv, full = SymmetricConv2d(2, 3, 5, 3, stride=2), nn.Conv2d(2, 3, 5, 2, 2, bias=False)
    full.weight.data = conv.expand().detach().clone()
    x = torch.randn(2, 2, 9, 9)
    conv(x).square().sum().backward()
    full(x).square().sum().backward()
    assert full.weight.grad is not None
    of_entries = full.weight.grad.flatten(2)
    summed = torch.zeros(3, 2, 6).index_add_(2, torch.as_tensor(symmetry_classes(5, 3)), of_entries)
    torch.testing.assert_close(conv.weight.grad, summed)


@pytest.mark.parametrize("level", range(5))
def test_initialisation_keeps_the_variance_of_rectified_maps(level: int) -> None:
    torch.manual_seed(0)
    y = SymmetricConv2d(32, 64, 5, level, padding=0)(torch.randn(8, 32, 12, 12))
    assert 1.6 < float(y.detach().var()) < 2.4  # twice the variance: a ReLU halves the second moment


@pytest.mark.parametrize("bias", [False, True])
def test_the_expanded_layer_computes_the_same(bias: bool) -> None:
    layer = SymmetricConv2d(2, 3, 4, 2, stride=2, padding=1, bias=bias).double()
    if layer.bias is not None:
        nn.init.uniform_(layer.bias)
    x = torch.randn(2, 2, 8, 8, dtype=torch.float64)
    plain = layer.plain()
    assert (plain.bias is not None) == bias
    torch.testing.assert_close(plain(x), layer(x))


def test_the_expansion_is_kept_in_evaluation_and_follows_the_weights() -> None:
    layer = SymmetricConv2d(1, 2, 3, 3).eval()
    with torch.no_grad():
        bank = layer.bank()
        assert layer.bank() is bank
        layer.weight += 1
        torch.testing.assert_close(layer.bank(), layer.expand())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, 1, 3, 5), r"^level is 5; the levels of symmetry are 0 \(none\), 1 \(mirror in x\), 2 \(both mirrors\), 3"),
        ((1, 1, 3, -1), r"^level is -1; the levels of symmetry are 0"),
        ((1, 1, 0, 1), r"^kernel is 0; it must be the side of a square of at least 1 entry$"),
        ((0, 1, 3, 1), r"^inputs is 0; a convolution needs at least 1$"),
        ((1, 0, 3, 1), r"^outputs is 0; a convolution needs at least 1$"),
    ],
)
def test_what_does_not_exist_is_refused(arguments: tuple[int, int, int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SymmetricConv2d(*arguments)


def test_strides_and_paddings_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^stride is 0; a convolution needs at least 1$"):
        SymmetricConv2d(1, 1, 3, 1, stride=0)
    with pytest.raises(ValueError, match=r"^padding is -1; it must be 0 or more, or None for kernel // 2$"):
        SymmetricConv2d(1, 1, 3, 1, padding=-1)
