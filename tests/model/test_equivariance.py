import math

import pytest
import torch
from torch import Tensor, nn

from emboundary.model.equivariance import equivariance_error, invariance_error, on_fields, on_pixels
from emboundary.model.group_conv import Fields, GroupConv2d
from emboundary.model.groups import C4, D4

IMAGE = torch.arange(32.0).reshape(1, 1, 4, 8)


def test_what_works_on_single_pixels_has_no_error() -> None:
    errors = equivariance_error(nn.ReLU(), IMAGE, D4)
    assert errors.group == "D4"
    assert [e.element for e in errors.elements] == [D4.element_name(place) for place in range(8)]
    assert all((e.absolute_max, e.absolute_l2, e.relative_max, e.relative_l2) == (0, 0, 0, 0) for e in errors.elements)


def test_errors_are_in_both_norms_absolute_and_relative() -> None:
    def upper_left(x: Tensor) -> Tensor:
        y = torch.ones_like(x)
        y[..., 0, 0] = 5
        return y

    _, half, quarter, _ = equivariance_error(upper_left, IMAGE, C4).elements
    assert half.element == "rotate-180"
    # two of 32 pixels differ by 4; the largest value is 5, the sum of squares 31 + 25
    assert (half.absolute_max, half.relative_max) == (4, pytest.approx(4 / 5))
    assert half.absolute_l2 == pytest.approx(math.sqrt(32))
    assert half.relative_l2 == pytest.approx(math.sqrt(32 / 56))
    assert quarter.element == "rotate-270"


def test_the_worst_element_is_found() -> None:
    def along_rows(x: Tensor) -> Tensor:
        return x.cumsum(dim=-1)

    errors = equivariance_error(along_rows, torch.randn(1, 1, 6, 6), D4)
    assert errors.worst.relative_max == max(e.relative_max for e in errors.elements) > 0.1
    kept = {e.element for e in errors.elements if e.relative_max < 1e-6}
    assert kept == {"identity", "mirror-y"}


def test_orbits_are_permuted_where_fields_are_given() -> None:
    torch.manual_seed(0)
    layer = GroupConv2d(C4, Fields(trivial=1), 2, 3)
    x = torch.randn(1, 1, 6, 6)
    assert equivariance_error(layer, x, C4, act_out=on_fields(Fields(regular=2))).worst.relative_max < 1e-5
    assert equivariance_error(layer, x, C4, act_out=on_pixels).worst.relative_max > 0.1


def test_invariance_is_of_outputs_that_should_stay() -> None:
    x = torch.randn(2, 1, 6, 6)
    assert invariance_error(lambda x: x.mean(dim=(2, 3)), x, D4).worst.relative_max < 1e-5
    assert invariance_error(lambda x: x[..., 0, 0], x, D4).worst.relative_max > 0.1


def test_another_shape_and_no_number_are_infinitely_wrong() -> None:
    def oblong(x: Tensor) -> Tensor:
        return x[..., ::2]

    def broken(x: Tensor) -> Tensor:
        return torch.where(x == x[..., :1, :1], torch.nan, x)

    assert equivariance_error(oblong, IMAGE, D4).worst.absolute_max == math.inf
    assert equivariance_error(broken, IMAGE, C4).worst.relative_l2 == math.inf


def test_zero_is_compared_with_zero() -> None:
    assert equivariance_error(torch.zeros_like, IMAGE, D4).worst.relative_max == 0
    assert equivariance_error(lambda x: (x[..., :1, :1] > 9) * x, IMAGE, D4).worst.relative_max == math.inf


def test_nothing_cannot_be_measured() -> None:
    with pytest.raises(ValueError, match=r"^x has the shape \(0, 1, 4, 4\); the error is measured on at least one"):
        equivariance_error(nn.ReLU(), torch.zeros(0, 1, 4, 4), D4)
    with pytest.raises(ValueError, match=r"^module gives the shape \(1, 1, 0, 8\) for x of shape \(1, 1, 4, 8\); "):
        equivariance_error(lambda x: x[..., :0, :], IMAGE, D4)
