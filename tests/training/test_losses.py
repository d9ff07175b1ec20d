import math

import numpy as np
import pytest
import torch

from emboundary.training.config import LossConfig
from emboundary.training.learning.losses import centre_lines, cross_entropy, dice_loss, skeleton_loss, total_loss


def test_it_is_the_mean_cross_entropy() -> None:
    # sigmoid(ln 3) = 3/4: the losses are -ln 3/4 where the target is 1, and -ln 1/4 where it is 0
    logit = torch.full((1, 1, 1, 4), math.log(3.0))
    target = torch.tensor([1.0, 0.0, 0.0, 0.0]).reshape(1, 1, 1, 4)
    loss = cross_entropy(logit, target, boundary_weight=1.0)
    assert loss.item() == pytest.approx((-math.log(0.75) - 3 * math.log(0.25)) / 4)


def test_boundary_pixels_count_by_their_weight() -> None:
    logit = torch.full((1, 1, 1, 4), math.log(3.0))
    target = torch.tensor([1.0, 0.0, 0.0, 0.0]).reshape(1, 1, 1, 4)
    loss = cross_entropy(logit, target, boundary_weight=5.0)
    assert loss.item() == pytest.approx((-5 * math.log(0.75) - 3 * math.log(0.25)) / 4)


def test_pixels_of_the_margin_count_nothing() -> None:
    logit = torch.randn(2, 1, 8, 10, generator=torch.manual_seed(0)).requires_grad_()
    target = (torch.rand(2, 1, 8, 10, generator=torch.manual_seed(1)) > 0.5).float()
    loss = total_loss([logit], target, LossConfig(), margin=3)
    loss.backward()  # type: ignore[no-untyped-call]
    assert logit.grad is not None
    inner = torch.zeros(8, 10, dtype=torch.bool)
    inner[3:5, 3:7] = True
    assert (logit.grad[..., inner] != 0).all()
    assert (logit.grad[..., ~inner] == 0).all()
    whole = total_loss([logit[..., 3:5, 3:7]], target[..., 3:5, 3:7], LossConfig(), margin=0)
    assert loss.item() == whole.item()


def test_it_is_computed_in_float32_whatever_the_logits_are() -> None:
    logit = torch.randn(1, 1, 8, 8, generator=torch.manual_seed(0)).bfloat16()
    target = torch.ones(1, 1, 8, 8)
    loss = total_loss([logit], target, LossConfig(dice=1.0), margin=0)
    assert loss.dtype == torch.float32
    assert loss.item() == total_loss([logit.float()], target, LossConfig(dice=1.0), margin=0).item()


def test_a_confident_error_costs_no_infinity() -> None:
    loss = cross_entropy(torch.full((1, 1, 1, 1), -1e4), torch.ones(1, 1, 1, 1), boundary_weight=1.0)
    assert loss.item() == 1e4


def test_dice_is_nothing_for_a_perfect_map_and_one_for_the_opposite() -> None:
    target = torch.tensor([1.0, 0.0, 0.0, 1.0]).reshape(1, 1, 1, 4)
    certain = (2 * target - 1) * 40
    assert dice_loss(certain, target).item() == pytest.approx(0, abs=1e-6)
    assert dice_loss(-certain, target).item() == pytest.approx(1)
    # everywhere 1/2: 1 - 2 (1/2 + 1/2) / (4/4 + 2)
    assert dice_loss(torch.zeros(1, 1, 1, 4), target).item() == pytest.approx(1 - 2 / 3)


def test_dice_of_crops_without_a_boundary_is_finite() -> None:
    logit = torch.full((1, 1, 2, 2), -200.0, requires_grad=True)
    loss = dice_loss(logit, torch.zeros(1, 1, 2, 2))
    loss.backward()  # type: ignore[no-untyped-call]
    assert logit.grad is not None
    assert torch.isfinite(loss)
    assert torch.isfinite(logit.grad).all()


def test_auxiliary_losses_are_averaged_and_weighted() -> None:
    logits = [torch.randn(1, 1, 8, 8, generator=torch.manual_seed(seed)) for seed in range(4)]
    target = torch.ones(1, 1, 8, 8)
    first, *others = (cross_entropy(logit, target, boundary_weight=1.0) for logit in logits)
    total = total_loss(logits, target, LossConfig(deep=0.3), margin=0)
    assert total.item() == pytest.approx((first + 0.3 * torch.stack(others).mean()).item())
    both = total_loss(logits[:1], target, LossConfig(dice=0.5), margin=0)
    assert both.item() == pytest.approx((first + 0.5 * dice_loss(logits[0], target)).item())


def test_centre_lines_are_thin_and_whole() -> None:
    target = np.zeros((2, 1, 24, 24), np.float32)
    target[0, 0, 5:12, 3:21] = 1  # a thick bar
    lines = centre_lines(target)
    assert lines.shape == target.shape
    assert set(np.unique(lines[0])) == {0.0, 1.0}
    assert lines[0, 0, :, 12].sum() == 3
    assert not lines[1].any()


def test_a_gap_costs_its_length_however_thin_the_boundary_is() -> None:
    target = np.zeros((1, 1, 32, 64), np.float32)
    target[0, 0, 8:9], target[0, 0, 20:27] = 1, 1
    lines = torch.from_numpy(centre_lines(target))
    sure = torch.from_numpy(np.where(target > 0, 20.0, -20.0).astype(np.float32))
    losses = []
    for rows in (slice(8, 9), slice(20, 27)):
        broken = sure.clone()
        broken[0, 0, rows, 30:34] = -20.0
        losses.append(skeleton_loss(broken, lines).item() - skeleton_loss(sure, lines).item())
    thin, thick = losses
    assert thick == pytest.approx(3 * thin, rel=0.1)  # not 7 times, as their pixels are: its line is 3 wide, of 1 here
    assert 0 <= skeleton_loss(sure, torch.zeros_like(lines)) <= 1


def test_skeleton_recall_is_added_to_the_loss() -> None:
    logit = torch.randn(1, 1, 16, 16, generator=torch.manual_seed(0))
    target = (torch.randn(1, 1, 16, 16, generator=torch.manual_seed(1)) > 0.5).float()
    lines = torch.from_numpy(centre_lines(target.numpy()))
    inner = slice(4, 12)
    total = total_loss([logit], target, LossConfig(skeleton=0.5), margin=4, lines=lines)
    cut = [plane[..., inner, inner] for plane in (logit, target, lines)]
    expected = cross_entropy(cut[0], cut[1], boundary_weight=1.0) + 0.5 * skeleton_loss(cut[0], cut[2])
    assert total.item() == pytest.approx(expected.item())
