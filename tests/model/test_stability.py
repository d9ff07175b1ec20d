import pytest
import torch
from torch import Tensor, nn

from emboundary.model.stability import deformation_curve, displacement, lipschitz_estimate, noise_curve

X = torch.randn(2, 1, 32, 40, generator=torch.Generator().manual_seed(0))


def smooth(x: Tensor) -> Tensor:
    return nn.functional.avg_pool2d(x, 9, 1, 4)


def test_a_displacement_is_as_steep_as_it_says() -> None:
    field = displacement(X, 6.0, seed=1)
    assert field.shape == (2, 32, 40)
    matrix = torch.stack(torch.gradient(field, dim=(1, 2)), dim=-1).movedim(0, -2)
    assert float(torch.linalg.matrix_norm(matrix, ord=2).max()) == pytest.approx(1)
    rougher = displacement(X, 2.0, seed=1)
    assert rougher.abs().mean() < field.abs().mean()


def test_change_grows_with_the_deformation() -> None:
    points = deformation_curve(nn.Identity(), smooth(X), (0.01, 0.1, 0.4)).points
    assert [p.size for p in points] == [0.01, 0.1, 0.4]
    assert 0 < points[0].output_change < points[1].output_change < points[2].output_change
    assert all(p.output_change == pytest.approx(p.input_change) and p.largest >= p.output_change for p in points)


def test_what_moves_along_changes_by_nothing_more() -> None:
    """A network of single pixels commutes with deformations; one of neighbouring pixels does not."""
    alone = deformation_curve(lambda x: 3 * x, X, (0.1,)).points[0]
    assert alone.beyond_moving == pytest.approx(0, abs=1e-6)
    beside = deformation_curve(smooth, X, (0.1,)).points[0]
    assert beside.beyond_moving is not None
    assert beside.beyond_moving > 0.01


def test_averages_over_wide_windows_are_stable_to_deformations_and_noise() -> None:
    for curve in (deformation_curve, noise_curve):
        still, changed = curve(smooth, X + 2, (0.1,)).points[0], curve(nn.Identity(), X + 2, (0.1,)).points[0]
        assert still.output_change < 0.5 * changed.output_change


def test_noise_changes_a_linear_map_in_proportion() -> None:
    points = noise_curve(nn.Identity(), X, (0.1, 1.0)).points
    assert points[1].output_change == pytest.approx(10 * points[0].output_change, rel=1e-4)
    assert points[0].input_change == pytest.approx(0.1, rel=0.05)
    assert points[0].beyond_moving is None


def test_class_scores_have_curves_too() -> None:
    curve = deformation_curve(lambda x: x.square().mean(dim=(2, 3)), X, (0.1,))
    assert curve.kind == "deformation"
    assert curve.points[0].beyond_moving is None


def test_curves_are_the_same_again() -> None:
    assert deformation_curve(smooth, X, (0.1,), seed=3) == deformation_curve(smooth, X, (0.1,), seed=3)
    assert noise_curve(smooth, X, seed=3) != noise_curve(smooth, X, seed=4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: deformation_curve(smooth, X, (0.1, 1.0)),
            r"^sizes has 1.0; max \|grad t\| must be above 0 and below 1",
        ),
        (lambda: deformation_curve(smooth, X, ()), r"^sizes are \(\), draws 4; a curve needs at least one of each$"),
        (
            lambda: deformation_curve(smooth, X, smoothness=0),
            r"^smoothness is 0; the Gaussian's standard deviation must",
        ),
        (lambda: deformation_curve(smooth, X[..., :1, :]), r"^x has sides 1 and 40; a displacement needs at least 2"),
        (lambda: noise_curve(smooth, X, (0.0,)), r"^levels has 0.0; a standard deviation of noise must be above 0$"),
        (lambda: noise_curve(smooth, X, draws=0), r"draws 0; a curve needs at least one of each$"),
        (lambda: noise_curve(torch.zeros_like, X), r"^module gives nothing but zeros for x; changes are relative"),
        (lambda: lipschitz_estimate(smooth, X, steps=0), r"^steps is 0; the search needs at least one$"),
    ],
)
def test_what_has_no_curve_is_refused(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_of_a_linear_map_the_estimate_reaches_the_spectral_norm() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(1, 3, 3, padding=1)
    small = X[..., :8, :8]
    matrix = (layer(torch.eye(64).reshape(64, 1, 8, 8)) - layer(torch.zeros(1, 1, 8, 8))).flatten(1).detach()
    exact = float(torch.linalg.matrix_norm(matrix, ord=2))
    assert lipschitz_estimate(layer, small, steps=100) == pytest.approx(exact, rel=1e-3)
    assert lipschitz_estimate(layer, small, steps=2) < exact


def test_the_estimate_is_local() -> None:
    def bent(x: Tensor) -> Tensor:
        return torch.where(x > 0, 5 * x, x)

    assert lipschitz_estimate(bent, -X.abs()) == pytest.approx(1)
    assert lipschitz_estimate(bent, torch.cat([-X.abs(), X.abs()])) == pytest.approx(5)
