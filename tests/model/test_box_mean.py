"""The mean filter inside of Inception modules, against torch's own."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from emboundary.model.box_mean import box_mean


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (1, 1, 5, 7), (1, 2, 1, 1), (1, 4, 2, 9)])
def test_it_is_torchs_pooling_in_value_and_gradient(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    mean, expected = box_mean(ours, training=True), F.avg_pool2d(theirs, 3, stride=1, padding=1)
    weights = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (mean * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(mean, expected, rtol=0, atol=1e-14)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=1e-14)


def test_its_gradient_has_a_gradient() -> None:
    x = torch.randn(1, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(partial(box_mean, training=True), x)
    assert torch.autograd.gradgradcheck(partial(box_mean, training=True), x)


def test_out_of_training_it_is_torchs_pooling_bit_for_bit() -> None:
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(box_mean(x, training=False), F.avg_pool2d(x, 3, stride=1, padding=1))
