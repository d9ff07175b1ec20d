"""A penalty on how much a network's convolutions can expand, for training.

    P = sum_l relu(s_l - target)^2,   s_l the spectral norm of convolution l

A batch norm that is registered directly behind a convolution belongs to it: without it the penalty would be one on a
scale that the norm takes away again.  It counts as it does at inference, ``gamma / sqrt(running variance)``.

s_l is that of the map on images of one side, found by power iteration: a vector of every layer is kept from step to
step, so that one application a step is enough while weights change slowly (Miyato et al. 2018, "Spectral
normalization for generative adversarial networks", section 2.1; for convolutions as maps: Farnia et al. 2019,
"Generalizable adversarial training via spectral normalization").

Source: review of pooling and invariance, section 4.1: "regularize the lipschitz constant in the convolutional layers
in order to prevent expansive behavior".
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from emboundary.model.group_conv import OrbitBatchNorm2d
from emboundary.model.lipschitz import Expandable, linear_part
from emboundary.model.spectral import gram


@dataclass(frozen=True)
class _Layer:
    """A convolution, and the batch norm behind it."""

    name: str
    conv: nn.Module
    norm: nn.BatchNorm2d | None
    channels: int

    def __call__(self, x: Tensor) -> Tensor:
        """The linear part of the two."""
        y = linear_part(self.conv, x)
        return y if self.norm is None else y * _scale(self.norm)[:, None, None]


class LipschitzPenalty(nn.Module):
    """``forward()``: the penalty of a network's convolutions as they are now; differentiable.

    It has no parameters, and ``net`` is not one of its modules; its buffers are the vectors of the power iterations.
    They are part of a training's state: with ``state_dict`` in a checkpoint it resumes exactly.

    Attributes:
        layers: the convolutions' names in ``net``, in the order of registration.

    Raises:
        ValueError: a network without convolutions, a side or iterations below 1, or a target below 0.
    """

    def __init__(
        self, net: nn.Module, *, side: int = 16, target: float = 1.0, iterations: int = 1, seed: int = 0
    ) -> None:
        super().__init__()
        for name, value in (("side", side), ("iterations", iterations)):
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        if target < 0:
            raise ValueError(f"target is {target}; a spectral norm is never below 0: give 0 or more")
        # In a tuple, which keeps the network's modules from being registered here too.
        self._layers = tuple(_convolutions(net))
        if not self._layers:
            raise ValueError(f"net is a {type(net).__name__} without convolutions; there is nothing to penalise")
        self.layers = tuple(layer.name for layer in self._layers)
        self.target, self.iterations = target, iterations
        generator = torch.Generator().manual_seed(seed)
        for i, layer in enumerate(self._layers):
            start = torch.randn(1, layer.channels, side, side, generator=generator)
            like = next(layer.conv.parameters())
            self.register_buffer(f"vector_{i}", (start / start.norm()).to(like))

    def forward(self) -> Tensor:
        """The penalty, a scalar; the vectors advance by ``iterations``."""
        norms = torch.stack([self._norm(i, layer) for i, layer in enumerate(self._layers)])
        return F.relu(norms - self.target).square().sum()

    def norms(self) -> dict[str, float]:
        """Every convolution's spectral norm as the vectors know it, from below; they stay as they are."""
        with torch.no_grad():
            return {
                layer.name: float(layer(self.get_buffer(f"vector_{i}")).norm()) for i, layer in enumerate(self._layers)
            }

    def _norm(self, i: int, layer: _Layer) -> Tensor:
        vector = self.get_buffer(f"vector_{i}")
        with torch.autocast(vector.device.type, enabled=False):
            for _ in range(self.iterations):
                vector = F.normalize(gram(layer, vector).flatten(), dim=0).reshape(vector.shape)
            # A new tensor: what an earlier call recorded for its gradients must not change under it.
            setattr(self, f"vector_{i}", vector)
            norm: Tensor = torch.linalg.vector_norm(layer(vector))
            return norm


def _convolutions(net: nn.Module) -> list[_Layer]:
    chosen = (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, Expandable)
    modules: list[tuple[str, nn.Module | None]] = list(net.named_modules())
    modules = [(name, module) for name, module in modules if isinstance(module, chosen)]
    found = []
    for (name, module), (_, behind) in pairwise([*modules, ("", None)]):
        if module is None or isinstance(module, nn.BatchNorm2d):
            continue
        plain = module.plain() if isinstance(module, Expandable) else module
        assert isinstance(plain, nn.Conv2d | nn.ConvTranspose2d)
        norm = behind if isinstance(behind, nn.BatchNorm2d) and _channels(behind) == plain.out_channels else None
        found.append(_Layer(name, module, norm, plain.in_channels))
    return found


def _channels(norm: nn.BatchNorm2d) -> int:
    return len(_scale(norm))


def _scale(norm: nn.BatchNorm2d) -> Tensor:
    """Factor of every channel at inference."""
    if isinstance(norm, OrbitBatchNorm2d):
        return norm.scale_and_shift()[0]
    assert norm.running_var is not None
    return norm.weight * torch.rsqrt(norm.running_var + norm.eps)
