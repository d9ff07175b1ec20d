import pytest
import torch
from torch import Tensor

from emboundary.model.resampling import rotated
from emboundary.model.worst_case import worst_rotation, worst_translation


def smooth_images(count: int, side: int) -> Tensor:
    noise = torch.randn(count, 1, side, side, generator=torch.Generator().manual_seed(0))
    for _ in range(3):
        noise = torch.nn.functional.avg_pool2d(noise, 5, 1, 2)
    return noise / noise.std()


X = smooth_images(2, 48)


def along_rows(x: Tensor) -> Tensor:
    return x.diff(dim=-1, append=x[..., -1:])


def lean(x: Tensor) -> Tensor:
    """How far the brightest direction of bars leans: a class score that depends on the angle."""
    return (x * x.roll(3, -1)).mean(dim=(2, 3))


def test_a_map_of_single_pixels_is_changed_by_interpolation_alone() -> None:
    found = worst_rotation(lambda x: 2 * x, X, angles=16, margin=2)
    assert found.scores == pytest.approx(found.reference)
    assert max(found.scores) < 0.05
    assert [found.mean_scores[i] for i in (0, 4, 8, 12)] == pytest.approx([0] * 4, abs=1e-4)


def test_a_map_that_knows_a_direction_is_changed_most_by_turning_it_over() -> None:
    found = worst_rotation(along_rows, X, angles=8, rounds=2, margin=2)
    assert all(abs(degrees - 180) < 30 for degrees in found.degrees)
    assert all(score > 1.5 > 0.2 > reference for score, reference in zip(found.scores, found.reference, strict=True))
    assert found.angles == (0, 45, 90, 135, 180, 225, 270, 315)


def test_refinement_finds_an_angle_between_those_of_the_grid() -> None:
    aim = 67.0

    def near_aim(output: Tensor, upright: Tensor) -> Tensor:
        wanted = rotated(upright_images, torch.full((2,), aim, dtype=torch.float64)).flatten(1)[:, ::7]
        return -(output - wanted).norm(dim=1) + 0 * upright.sum(dim=1)

    upright_images = X
    found = worst_rotation(lambda x: x.flatten(1)[:, ::7], X, near_aim, angles=24, rounds=5)
    assert found.degrees == pytest.approx((aim, aim), abs=1)
    assert found.reference == (0, 0)


def test_every_image_has_its_own_worst_angle() -> None:
    bars = torch.sin(torch.arange(48.0) / 2).expand(1, 1, 48, 48)
    both = torch.cat([bars, bars.mT])
    found = worst_rotation(lean, both, lambda output, _: output[:, 0], angles=8, rounds=0)
    assert len(set(found.degrees)) == 2
    alone = worst_rotation(lean, both[1:], lambda output, _: output[:, 0], angles=8, rounds=0)
    assert found.degrees[1:] == alone.degrees


def test_what_commutes_with_shifts_is_not_changed_by_them() -> None:
    found = worst_translation(along_rows, X, limit=4, step=2, margin=1)
    assert max(found.scores) < 1e-5
    assert len(found.grid) == 25
    assert (0, 0) in found.grid


def test_a_stride_shows_in_shifts_that_it_does_not_divide() -> None:
    def every_fourth(x: Tensor) -> Tensor:
        return x[..., ::4, ::4].repeat_interleave(4, -1).repeat_interleave(4, -2)

    found = worst_translation(every_fourth, X, limit=4, step=2)
    means = dict(zip(found.grid, found.mean_scores, strict=True))
    assert means[4, 4] < 1e-5 < 0.1 < means[2, 2]
    assert all(shift[0] % 4 or shift[1] % 4 for shift in found.shifts)


def test_a_climb_finds_the_worst_shift_between_those_of_the_grid() -> None:
    def column(x: Tensor) -> Tensor:
        return x[:, 0, 20, :]

    for aim in (3, -5):
        target = X.roll(aim, -1)[:, 0, 20, 8:-8]
        found = worst_translation(
            column, X, lambda y, _, target=target: -(y[:, 8:-8] - target).norm(dim=1), limit=6, step=2
        )
        assert found.shifts == ((0, aim), (0, aim))
        assert found.scores == pytest.approx((0, 0), abs=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: worst_rotation(along_rows, X, angles=3),
            r"^angles is 3; the grid needs at least the 4 quarter turns$",
        ),
        (lambda: worst_rotation(along_rows, X, rounds=-1), r"^rounds is -1; it must be 0 or more$"),
        (lambda: worst_rotation(along_rows, X, margin=24), r"^margin is 24 for images of 48 x 48; .* give larger x$"),
        (lambda: worst_translation(along_rows, X, limit=0), r"^limit is 0; it must be at least 1 pixel$"),
        (lambda: worst_translation(along_rows, X, step=0), r"^step is 0; it must be at least 1 pixel$"),
        (
            lambda: worst_translation(along_rows, X, limit=8, margin=16),
            r"^limit 8 and margin 16 leave nothing of images",
        ),
    ],
)
def test_searches_without_sense_are_refused(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
