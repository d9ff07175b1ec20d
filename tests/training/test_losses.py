import math

import pytest
import torch

from emboundary.training.losses import boundary_loss


def test_it_is_the_mean_cross_entropy() -> None:
    # sigmoid(ln 3) = 3/4: the losses are -ln 3/4 where the target is 1, and -ln 1/4 where it is 0
    logit = torch.full((1, 1, 1, 4), math.log(3.0))
    target = torch.tensor([1.0, 0.0, 0.0, 0.0]).reshape(1, 1, 1, 4)
    loss = boundary_loss(logit, target, margin=0, boundary_weight=1.0)
    assert loss.item() == pytest.approx((-math.log(0.75) - 3 * math.log(0.25)) / 4)


def test_boundary_pixels_count_by_their_weight() -> None:
    logit = torch.full((1, 1, 1, 4), math.log(3.0))
    target = torch.tensor([1.0, 0.0, 0.0, 0.0]).reshape(1, 1, 1, 4)
    loss = boundary_loss(logit, target, margin=0, boundary_weight=5.0)
    assert loss.item() == pytest.approx((-5 * math.log(0.75) - 3 * math.log(0.25)) / 4)


def test_pixels_of_the_margin_count_nothing() -> None:
    logit = torch.randn(2, 1, 8, 10, generator=torch.manual_seed(0)).requires_grad_()
    target = (torch.rand(2, 1, 8, 10, generator=torch.manual_seed(1)) > 0.5).float()
    loss = boundary_loss(logit, target, margin=3, boundary_weight=1.0)
    loss.backward()  # type: ignore[no-untyped-call]
    assert logit.grad is not None
    inner = torch.zeros(8, 10, dtype=torch.bool)
    inner[3:5, 3:7] = True
    assert (logit.grad[..., inner] != 0).all()
    assert (logit.grad[..., ~inner] == 0).all()
    whole = boundary_loss(logit[..., 3:5, 3:7], target[..., 3:5, 3:7], margin=0, boundary_weight=1.0)
    assert loss.item() == whole.item()


def test_it_is_computed_in_float32_whatever_the_logits_are() -> None:
    logit = torch.randn(1, 1, 8, 8, generator=torch.manual_seed(0)).bfloat16()
    target = torch.ones(1, 1, 8, 8)
    loss = boundary_loss(logit, target, margin=0, boundary_weight=1.0)
    assert loss.dtype == torch.float32
    assert loss.item() == boundary_loss(logit.float(), target, margin=0, boundary_weight=1.0).item()


def test_a_confident_error_costs_no_infinity() -> None:
    loss = boundary_loss(torch.full((1, 1, 1, 1), -1e4), torch.ones(1, 1, 1, 1), margin=0, boundary_weight=1.0)
    assert loss.item() == 1e4
