"""The enlarging layer of symmetric kernels; its law is among those of all layers."""

import pytest
import torch

from emboundary.model.symmetric_deconv import SymmetricDeconv2d


@pytest.mark.parametrize(("stride", "numbers"), [(2, (16, 8, 4, 3, 2)), (4, (64, 32, 16, 10, 5))])
def test_a_class_of_entries_is_one_parameter(stride: int, numbers: tuple[int, ...]) -> None:
    for level, count in enumerate(numbers):
        layer = SymmetricDeconv2d(2, 3, stride, level)
        assert [tuple(p.shape) for p in layer.parameters()] == [(3, 2, count)]
        assert layer.expand().shape == (2, 3, 2 * stride, 2 * stride)


@pytest.mark.parametrize("level", range(5))
def test_the_expanded_layer_computes_the_same(level: int) -> None:
    layer, x = SymmetricDeconv2d(2, 3, 2, level), torch.randn(2, 2, 4, 6)
    assert layer(x).shape == (2, 3, 8, 12)
    torch.testing.assert_close(layer.plain()(x), layer(x))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 1, 2, 1), "inputs is 0; a convolution needs at least 1"),
        ((1, 0, 2, 1), "outputs is 0; a convolution needs at least 1"),
        ((1, 1, 3, 1), "stride is 3; a symmetric deconvolution without output padding needs an even one"),
        ((1, 1, 0, 1), "stride is 0; a symmetric deconvolution without output padding needs an even one"),
        ((1, 1, 2, 5), "level is 5; the levels of symmetry are 0"),
    ],
)
def test_bad_arguments_are_refused(arguments: tuple[int, int, int, int], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        SymmetricDeconv2d(*arguments)
