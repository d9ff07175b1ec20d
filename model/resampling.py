"""Images between their pixels: turned by any angle, moved by a field; differentiable, on any device.

Values between pixels are bicubic; outside the image it is reflected at its outermost pixels' edges.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def sampled(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Values of images at places in pixels: (N, C, H, W) and twice (N, H', W') -> (N, C, H', W').

    Pixel (i, j) has its centre at row i and column j.
    """
    height, width = x.shape[-2:]
    grid = torch.stack([(2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1], dim=-1).to(x)
    return F.grid_sample(x, grid, mode="bicubic", padding_mode="reflection", align_corners=False)


def pixel_grid(x: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns of the pixels of an image (..., H, W), float64, both of shape (H, W)."""
    height, width = x.shape[-2:]
    axes = (torch.arange(height, dtype=torch.float64), torch.arange(width, dtype=torch.float64))
    rows, columns = torch.meshgrid(*axes, indexing="ij")
    return rows.to(x.device), columns.to(x.device)


def rotated(x: Tensor, degrees: Tensor) -> Tensor:
    """Turn each image counter-clockwise about its centre, as numpy.rot90 does by 90 degrees.

    Shapes: (N, C, H, W) and (N,) -> (N, C, H, W).
    """
    rows, columns = pixel_grid(x)
    middle_y, middle_x = (x.shape[-2] - 1) / 2, (x.shape[-1] - 1) / 2
    angle = torch.deg2rad(degrees.to(rows))[:, None, None]
    cosine, sine = torch.cos(angle), torch.sin(angle)
    # y points down: a turn counter-clockwise brings a pixel from the place that the inverse turn takes it to
    y, x_ = rows - middle_y, columns - middle_x
    return sampled(x, middle_y + cosine * y + sine * x_, middle_x + cosine * x_ - sine * y)


def displaced(x: Tensor, field: Tensor) -> Tensor:
    """``x_t(u) = x(u - t(u))`` with t in pixels: (N, C, H, W) and (2, H, W), rows first -> (N, C, H, W)."""
    rows, columns = pixel_grid(x)
    moved = field.to(rows)
    count = (x.shape[0], -1, -1)
    return sampled(x, (rows - moved[0]).expand(count), (columns - moved[1]).expand(count))
