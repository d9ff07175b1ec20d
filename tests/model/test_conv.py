import pytest
import torch

from emboundary.model.conv import KernelOrbitConv2d, flips, rotations


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


def test_a_table_of_another_kernel_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^table has 9 entries; a 5 x 5 kernel has 25$"):
        KernelOrbitConv2d(1, 1, 5, flips(3))
