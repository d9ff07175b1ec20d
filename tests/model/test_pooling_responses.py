"""Stochastic pooling: what is drawn, how often, and where its gradient goes; entropy pooling by its two examples."""

import pytest
import torch

from emboundary.model.pooling_responses import EntropyPool2d, StochasticPool2d


def test_stochastic_pooling_draws_by_absolute_value() -> None:
    x = torch.tensor([[1.0, -2.0], [0.0, 5.0]]).expand(1, 1, 2, 2).repeat(40_000, 1, 1, 1)
    drawn = StochasticPool2d(2, 2, generator=torch.Generator().manual_seed(0)).train()(x).flatten()
    for value, probability in ((1, 1 / 8), (-2, 2 / 8), (0, 0), (5, 5 / 8)):
        assert float((drawn == value).float().mean()) == pytest.approx(probability, abs=5 * 0.5 / 200)
    assert float(drawn.mean()) == pytest.approx(float(StochasticPool2d(2, 2).eval()(x[:1])), abs=0.07)


def test_what_is_drawn_can_be_repeated() -> None:
    x = torch.randn(2, 3, 8, 8)
    first, second = (StochasticPool2d(2, 2, generator=torch.Generator().manual_seed(4)).train()(x) for _ in range(2))
    assert torch.equal(first, second)
    torch.manual_seed(4)
    third = StochasticPool2d(2, 2).train()(x)
    assert not torch.equal(StochasticPool2d(2, 2).train()(x), third)


def test_the_gradient_of_a_draw_goes_to_the_pixel_drawn() -> None:
    x = torch.randn(2, 3, 9, 9, dtype=torch.float64, requires_grad=True)
    y = StochasticPool2d(3, 3).train()(x)
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal((x.grad * x).unflatten(3, (3, 3)).unflatten(2, (3, 3)).sum(dim=(3, 5)), y.detach())
    assert float(x.grad.sum()) == y.numel()


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e37])
def test_drawing_is_safe_at_the_ends_of_the_range(scale: float) -> None:
    x = torch.rand(2, 3, 8, 8) * scale
    y = StochasticPool2d(4, 2, padding=1).train()(x)
    assert y.isfinite().all()
    assert set(y.flatten().tolist()) <= set(x.flatten().tolist())


def test_entropy_pooling_of_a_peak_and_of_uniform_responses() -> None:
    pool = EntropyPool2d(3, 3)
    peak = torch.zeros(1, 1, 3, 3)
    peak[..., 0, 1] = -2.5
    assert pool(peak).item() == pytest.approx(9 * 2.5)
    assert pool(torch.full((1, 1, 3, 3), 0.3)).item() == pytest.approx(0.3)
