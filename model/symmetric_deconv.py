"""Transposed convolution with symmetric kernels: the enlarging step of a network whose kernels are symmetric."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emboundary.model.symmetric import symmetry_classes


class SymmetricDeconv2d(nn.Module):
    """Transposed convolution that enlarges by ``stride``, its kernels constant on the classes of a symmetry.

    Kernel 2 stride, padding stride / 2: the geometry of ``GroupDeconv2d``, so that the output is exactly ``stride``
    times the input.  The parameters are ``weight`` (outputs, inputs, classes), as those of ``SymmetricConv2d``.

    Law: ``layer(L_g x) = L_g layer(x)`` for every g of ``LEVEL_GROUPS[level]``, the maps being trivial fields.

    Shapes: (N, inputs, H, W) -> (N, outputs, stride H, stride W).

    Raises:
        ValueError: inputs or outputs below 1, an odd stride or one below 2, or a level that is not 0 to 4.

    Source: Symmetric kernels paper, section 3, for the kernels; the deconvolution is that of the
    efficient-invariant-dense-prediction paper, section IV-B.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, level: int) -> None:
        super().__init__()
        for name, value in (("inputs", inputs), ("outputs", outputs)):
            if value < 1:
                raise ValueError(f"{name} is {value}; a convolution needs at least 1")
        if stride < 2 or stride % 2:
            raise ValueError(f"stride is {stride}; a symmetric deconvolution without output padding needs an even one")
        self.kernel, self.level, self.stride = 2 * stride, level, stride
        classes = symmetry_classes(self.kernel, level)
        bound = math.sqrt(6.0 / (inputs * self.kernel**2))
        self.weight = nn.Parameter(torch.empty(outputs, inputs, int(classes.max()) + 1).uniform_(-bound, bound))
        self.register_buffer("_classes", torch.as_tensor(classes), persistent=False)
        self._classes: Tensor

    def expand(self) -> Tensor:
        """Return the ordinary filter bank, (inputs, outputs, k, k)."""
        bank = torch.unflatten(self.weight.index_select(2, self._classes), 2, (self.kernel, self.kernel))
        return bank.transpose(0, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv_transpose2d(x, self.expand(), stride=self.stride, padding=self.stride // 2)

    def plain(self) -> nn.ConvTranspose2d:
        """The same layer as an ordinary transposed convolution with every entry written out."""
        weight = self.expand().detach()
        conv = nn.ConvTranspose2d(
            weight.shape[0], weight.shape[1], self.kernel, self.stride, self.stride // 2, bias=False
        )
        conv.weight.data = weight.clone(memory_format=torch.contiguous_format)
        return conv
