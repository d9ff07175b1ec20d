"""Rotated and flipped copies of one kernel: their numbers, their combination, and what is refused."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from emboundary.model.conv import Combination, Copies, KernelOrbitConv2d, OrbitMaxoutConv2d, flips, rotations
from emboundary.model.group_conv import Fields, GroupConv2d
from emboundary.model.groups import D4

NUMPY_COPIES = {
    "rotations-2": lambda w: [w, np.rot90(w, 2)],
    "rotations-4": lambda w: [w, np.rot90(w, 2), np.rot90(w, 3), np.rot90(w)],
    "flips": lambda w: [w, w[:, ::-1], w[::-1]],
    "d4": lambda w: [v for u in (w, w.T) for v in (u, u[:, ::-1], u[::-1], u[::-1, ::-1])],
}


def test_the_expanded_kernel_orbit_computes_the_same() -> None:
    layer = KernelOrbitConv2d(2, 3, 3, rotations(8, 3))
    x = torch.randn(2, 2, 8, 8)
    torch.testing.assert_close(layer.plain()(x), layer(x))


def test_eight_rotations_move_the_ring_one_step_at_a_time() -> None:
    kernel = torch.tensor([[1, 2, 3], [8, 0, 4], [7, 6, 5]]).flatten()
    turned = kernel[torch.as_tensor(rotations(8, 3)[1])].reshape(3, 3)
    assert turned.tolist() == [[2, 3, 4], [1, 0, 5], [8, 7, 6]]


@pytest.mark.parametrize("angles", [2, 4])
def test_fewer_rotations_are_among_the_eight(angles: int) -> None:
    eight = {row.tobytes() for row in rotations(8, 3)}
    assert {row.tobytes() for row in rotations(angles, 3)} <= eight


@pytest.mark.parametrize(("angles", "kernel"), [(8, 5), (3, 3)])
def test_rotations_that_do_not_exist_are_refused(angles: int, kernel: int) -> None:
    with pytest.raises(ValueError, match=rf"^angles is {angles} for a {kernel} x {kernel} kernel; 2 or 4 rotations"):
        rotations(angles, kernel)


@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
@pytest.mark.parametrize("copies", NUMPY_COPIES)
def test_maxout_is_the_maximum_over_copies_of_the_kernel(copies: Copies, kernel: int) -> None:
    layer = OrbitMaxoutConv2d(1, 1, kernel, copies, padding=0)
    weight = layer.weight.detach().numpy().reshape(kernel, kernel)
    x = torch.randn(1, 1, 7, 9)
    maps = [F.conv2d(x, torch.tensor(w.copy())[None, None]) for w in NUMPY_COPIES[copies](weight)]
    torch.testing.assert_close(layer(x), torch.stack(maps).amax(dim=0))


def test_concatenation_keeps_every_copy_the_transformation_fastest() -> None:
    layer = OrbitMaxoutConv2d(2, 3, 3, "rotations-8", combine="concatenate")
    x = torch.randn(2, 2, 6, 6)
    maps = layer(x)
    assert maps.shape == (2, 24, 6, 6)
    bank = layer.expand()
    torch.testing.assert_close(maps[:, 8:16], F.conv2d(x, bank[8:16], padding=1))
    for turned in bank[8:16]:
        assert torch.equal(turned[0].flatten().sort().values, bank[8, 0].flatten().sort().values)


def test_concatenation_over_d4_is_lifting() -> None:
    layer, lifting = OrbitMaxoutConv2d(2, 3, 5, "d4", combine="concatenate"), GroupConv2d(D4, Fields(trivial=2), 3, 5)
    lifting.filters.trivial.data = layer.weight.detach().clone()
    x = torch.randn(1, 2, 8, 8)
    torch.testing.assert_close(layer(x), lifting(x))


@pytest.mark.parametrize(("combine", "channels"), [("maxout", 3), ("concatenate", 12)])
def test_strides_and_paddings(combine: Combination, channels: int) -> None:
    layer = OrbitMaxoutConv2d(2, 3, 4, "rotations-4", combine=combine, stride=2, padding=1)
    x = torch.randn(2, 2, 8, 12)
    assert layer(x).shape == (2, channels, 4, 6)
    plain: torch.Tensor = KernelOrbitConv2d.plain(layer)(x)
    assert plain.shape == (2, 12, 4, 6)
    torch.testing.assert_close(plain if channels == 12 else plain.unflatten(1, (3, 4)).amax(2), layer(x))


def test_copies_share_their_parameters() -> None:
    assert sum(p.numel() for p in OrbitMaxoutConv2d(2, 3, 3, "rotations-8").parameters()) == 2 * 3 * 9


def test_gradients_are_right() -> None:
    layer = OrbitMaxoutConv2d(2, 2, 3, "d4", stride=2, padding=1).double()
    x = torch.randn(1, 2, 5, 5, dtype=torch.float64, requires_grad=True)

    def function(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = torch.func.functional_call(layer, {"weight": weight}, (x,))
        return found

    assert torch.autograd.gradcheck(function, (x, layer.weight.detach().clone().requires_grad_()))


@pytest.mark.parametrize(
    ("kernel", "copies", "message"),
    [
        (4, "rotations-8", r"^angles is 8 for a 4 x 4 kernel; 2 or 4 rotations exist for any kernel, 8 for 3 x 3"),
        (5, "rotations-8", r"^angles is 8 for a 5 x 5 kernel; 2 or 4 rotations"),
        (3, "p4", r"^copies is 'p4'; a kernel's copies are one of rotations-2, rotations-4, rotations-8, flips, d4$"),
        (0, "flips", r"^kernel is 0; it must be the side of a square of at least 1 entry$"),
    ],
)
def test_copies_that_do_not_exist_are_refused(kernel: int, copies: Copies, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OrbitMaxoutConv2d(1, 1, kernel, copies)


def test_combinations_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^combine is 'sum'; copies are combined by maxout or concatenate$"):
        OrbitMaxoutConv2d(1, 1, 3, "d4", combine="sum")  # type: ignore[arg-type]


def test_sizes_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^inputs is 0; a convolution needs at least 1$"):
        KernelOrbitConv2d(0, 1, 3, flips(3))
    with pytest.raises(ValueError, match=r"^outputs is 0; a convolution needs at least 1$"):
        KernelOrbitConv2d(1, 0, 3, flips(3))
    with pytest.raises(ValueError, match=r"^stride is 0; a convolution needs at least 1$"):
        KernelOrbitConv2d(1, 1, 3, flips(3), stride=0)
    with pytest.raises(ValueError, match=r"^padding is -1; it must be 0 or more, or None for kernel // 2$"):
        KernelOrbitConv2d(1, 1, 3, flips(3), padding=-1)
    with pytest.raises(ValueError, match=r"^table has 9 entries; a 5 x 5 kernel has 25$"):
        KernelOrbitConv2d(1, 1, 5, rotations(4, 3))
    with pytest.raises(ValueError, match=r"^table is \[\[0, 1, 1, 3\]\]; every row must be a permutation of 0 to 3$"):
        KernelOrbitConv2d(1, 1, 2, np.array([[0, 1, 1, 3]]))


def test_the_expansion_is_kept_in_evaluation_and_follows_the_weights() -> None:
    layer = OrbitMaxoutConv2d(1, 2, 3, "d4").eval()
    with torch.no_grad():
        bank = layer.bank()
        assert layer.bank() is bank
        layer.weight += 1
        torch.testing.assert_close(layer.bank(), layer.expand())
