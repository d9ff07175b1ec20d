"""Stochastic and entropy pooling: what stands out in a window counts for more than it does in the average.

Source: Pooling and invariance review, section 2.5; stochastic pooling: Zeiler and Fergus 2013, "Stochastic pooling
for regularization of deep convolutional neural networks".
"""

from __future__ import annotations

from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emboundary.model.pooling_windows import divisor, padded, taps


class StochasticPool2d(nn.Module):
    """In training one pixel of each window, drawn; in evaluation what is drawn on average.

    Pixel i is drawn with probability ``p_i = |x_i| / sum_j |x_j|`` and passed on as it is, sign and all; the
    expectation is ``y = sum_i p_i x_i = sum_i |x_i| x_i / sum_i |x_i|``.  Both papers know responses of at least 0
    only, where |x| = x and this is theirs.  A window of zeros gives 0.

    Gradients: in training that of the pixel drawn (its probability is not differentiated); in evaluation that of the
    expectation, 0 in windows of zeros.  The largest |x| of each window is taken out, so that no square overflows.

    Law, in evaluation: ``layer(L_g x) = L_g layer(x)`` for every g of D4, any fields, where (side + 2 padding -
    kernel) mod stride = 0.  In training it holds for the distribution, not for what is drawn.

    Shapes: (N, C, H, W) -> (N, C, (H + 2 padding - kernel) // stride + 1, the same of W); the padding is of zeros,
    which are never drawn.

    Args:
        kernel, stride, padding: the windows.
        generator: that pixels are drawn with; None: torch's own.

    Source: Pooling and invariance review, section 2.5.
    """

    def __init__(self, kernel: int, stride: int, *, padding: int = 0, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.kernel, self.stride, self.padding, self.generator = kernel, stride, padding, generator

    def forward(self, x: Tensor) -> Tensor:
        x = padded(x, self.padding)
        return self._drawn(x) if self.training else self._expected(x)

    def _drawn(self, x: Tensor) -> Tensor:
        rows = (row for column in self._taps(x, 3) for row in self._taps(column, 2))
        responses = torch.stack(list(rows))  # (k * k, N, C, H', W')
        size = responses.detach().abs()
        reached = (size / divisor(size.amax(dim=0))).cumsum(dim=0)
        # the last quotient is exactly 1, above any draw, as is every one behind the last pixel that is not 0
        reached = reached / divisor(reached[-1])
        draw = torch.rand(reached.shape[1:], generator=self.generator, dtype=x.dtype, device=x.device)
        chosen = (reached <= draw).sum(dim=0, keepdim=True).clamp_max(len(responses) - 1)
        return responses.gather(0, chosen)[0]

    def _expected(self, x: Tensor) -> Tensor:
        in_row = self._taps(x, 3)
        top = _largest(in_row)
        shares = [tap.abs() / divisor(top) for tap in in_row]
        whole, part = sum(shares), sum(share * tap for share, tap in zip(shares, in_row, strict=True))
        assert isinstance(whole, Tensor) and isinstance(part, Tensor)
        tops = self._taps(top, 2)
        highest = _largest(tops)
        scales = [tap / divisor(highest) for tap in tops]
        whole, part = (
            reduce(torch.add, [scale * row for scale, row in zip(scales, self._taps(sums, 2), strict=True)])
            for sums in (whole, part)
        )
        return part / divisor(whole)

    def _taps(self, x: Tensor, axis: int) -> list[Tensor]:
        return taps(x, axis, self.kernel, self.stride)


class EntropyPool2d(nn.Module):
    """``y = max_i |x_i|^2 / mean_i |x_i|``: a peak counts for more the rarer it is.

    Of uniform windows it is the average; a single pixel h among zeros gives k^2 h.  The result is between the maximum
    of |x| and k^2 times that, the sign is lost, and a window of zeros gives 0, with gradient 0: the quotient is
    continuous there, which max / mean would not be.  Computed as max (max / mean), which squares nothing.

    Law: ``layer(L_g x) = L_g layer(x)`` for every g of D4, any fields, where (side + 2 padding - kernel) mod
    stride = 0.

    Shapes: (N, C, H, W) -> (N, C, (H + 2 padding - kernel) // stride + 1, the same of W); the padding is of zeros,
    which count.

    Source: Pooling and invariance review, section 2.5, where it is l_inf^2 / l_1, "or" max^2 / avg; this is the
    second, whose value on uniform windows is the average, as the text goes on to say.
    """

    def __init__(self, kernel: int, stride: int, *, padding: int = 0) -> None:
        super().__init__()
        self.kernel, self.stride, self.padding = kernel, stride, padding

    def forward(self, x: Tensor) -> Tensor:
        size = x.abs()
        top = F.max_pool2d(size, self.kernel, self.stride, self.padding)
        mean = F.avg_pool2d(size, self.kernel, self.stride, self.padding)
        return top * (top / divisor(mean))


def _largest(parts: list[Tensor]) -> Tensor:
    return reduce(torch.maximum, [part.abs() for part in parts]).detach()
