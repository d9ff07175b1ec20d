from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from emboundary.model.spectral import spectral_norm

DOUBLE = torch.float64


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: nn.Conv2d(3, 5, 3, padding=1, bias=False), (3, 6, 8)),
        (lambda: nn.Conv2d(2, 4, 4, stride=2, padding=1, bias=False), (2, 8, 6)),
        (lambda: nn.ConvTranspose2d(3, 2, 4, 2, 1, bias=False), (3, 4, 5)),
        (lambda: nn.AvgPool2d(3, 1, 1), (1, 7, 7)),
    ],
    ids=["convolution", "strided", "transposed", "mean"],
)
def test_it_is_the_largest_singular_value_of_the_matrix(make: Callable[[], nn.Module], shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)  # a kernel whose two largest singular values nearly agree can end at the lesser one
    layer = make().double()
    size = torch.Size(shape).numel()
    matrix = layer(torch.eye(size, dtype=DOUBLE).reshape(size, *shape)).flatten(1).detach()
    exact = float(torch.linalg.matrix_norm(matrix, ord=2))
    found = spectral_norm(layer, torch.zeros(1, *shape, dtype=DOUBLE))
    assert found.lower == pytest.approx(exact, rel=1e-4)
    assert exact * (1 - 1e-12) <= found.upper <= exact * (1 + 1e-4)


def test_it_is_that_of_the_map_not_of_the_reshaped_kernel() -> None:
    """A kernel of nine equal entries has the norm 3 as a vector, and nearly 9 as a convolution of a large image."""
    layer = nn.Conv2d(1, 1, 3, padding=1, bias=False).double()
    nn.init.ones_(layer.weight)
    assert 8.9 < spectral_norm(layer, torch.zeros(1, 1, 40, 40, dtype=DOUBLE)).upper < 9


def test_a_map_of_rank_one_is_exact_at_once() -> None:
    def mean(x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))

    found = spectral_norm(mean, torch.zeros(1, 1, 5, 5, dtype=DOUBLE))
    assert (found.lower, found.upper) == pytest.approx((0.2, 0.2))


def test_nothing_has_norm_zero() -> None:
    found = spectral_norm(lambda x: 0 * x, torch.zeros(1, 1, 4, 4))
    assert (found.lower, found.upper) == (0, 0)


def test_few_steps_say_how_far_they_came() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(8, 8, 3, padding=1, bias=False).double()
    like = torch.zeros(1, 8, 24, 24, dtype=DOUBLE)
    few, many = spectral_norm(layer, like, steps=4, restarts=1), spectral_norm(layer, like, tolerance=1e-9)
    assert few.lower < many.lower
    assert few.upper - few.lower > 0.01 * few.lower
    assert many.upper - many.lower < 1e-7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 1}, r"^steps is 1; a spectral norm needs at least 2"),
        ({"restarts": 0}, r"^restarts is 0; a spectral norm needs at least 1"),
        ({"tolerance": 0.0}, r"^tolerance is 0.0; it must be above 0"),
        ({"like": torch.zeros(0)}, r"^like.numel\(\) is 0; a spectral norm needs at least 1"),
    ],
)
def test_what_cannot_be_measured_is_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        spectral_norm(lambda x: x, **{"like": torch.zeros(2), **change})
