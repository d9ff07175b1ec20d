import numpy as np
import pytest
import torch

from emboundary.model.resampling import displaced, rotated, sampled

SQUARE, OBLONG = torch.randn(2, 3, 9, 9), torch.randn(2, 1, 8, 12)


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_quarter_turns_move_pixels_as_rot90_does(quarters: int) -> None:
    turned = rotated(SQUARE, torch.full((2,), 90.0 * quarters))
    np.testing.assert_allclose(turned.numpy(), np.rot90(SQUARE.numpy(), quarters, axes=(-2, -1)), atol=1e-4)


def test_every_image_is_turned_by_its_own_angle() -> None:
    turned = rotated(OBLONG, torch.tensor([0.0, 180.0]))
    torch.testing.assert_close(turned[0], OBLONG[0], rtol=0, atol=1e-4)
    torch.testing.assert_close(turned[1], OBLONG[1].flip(-1, -2), rtol=0, atol=1e-4)


def test_turning_back_gives_a_smooth_image_again() -> None:
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    smooth = torch.sin(rows / 5) * torch.cos(columns / 7)
    there = rotated(smooth[None, None], torch.tensor([33.0]))
    back = rotated(there, torch.tensor([-33.0]))[0, 0]
    assert (there[0, 0] - smooth).abs().max() > 0.5
    assert (back - smooth)[8:24, 8:24].abs().max() < 0.02


def test_a_constant_displacement_is_a_shift() -> None:
    field = torch.stack([torch.full((8, 12), 2.0), torch.full((8, 12), -3.0)])
    torch.testing.assert_close(displaced(OBLONG, field)[..., 2:, :9], OBLONG[..., :6, 3:], rtol=0, atol=1e-4)


def test_places_are_rows_and_columns_in_pixels() -> None:
    at = sampled(OBLONG, torch.tensor([[[3.0]], [[0.0]]]), torch.tensor([[[10.0]], [[4.0]]]))
    torch.testing.assert_close(
        at[:, 0, 0, 0], torch.stack([OBLONG[0, 0, 3, 10], OBLONG[1, 0, 0, 4]]), rtol=0, atol=1e-4
    )
