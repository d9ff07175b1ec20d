"""Filters that are permuted copies of a few: made by lookups, differentiated by lookups, kept at inference.

Source: Cohen and Welling 2016, section 7.1 (filter transformation as a table of indices) and appendix B (its
gradient).  Their gradient adds from many threads into one cell; rows of the tables here are permutations, so that the
gradient is a lookup by the inverse permutation and a sum over copies, in the same order every time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


def permuted_copies(weight: Tensor, table: Tensor) -> Tensor:
    """All copies of base filters: ``out[o, t, i, k] = weight[o, i, table[t, k]]``.

    Shapes: weight (O, I, taps), table (T, taps), every row a permutation -> (O, T, I, taps).
    """
    copies: Tensor = _PermutedCopies.apply(weight, table)  # type: ignore[no-untyped-call]
    return copies


class _PermutedCopies(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(weight: Tensor, table: Tensor) -> Tensor:
        # not ``gather``, which the tools that read exported graphs cannot always compute beforehand
        copies = weight.flatten(0, 1).index_select(1, table.flatten())
        return copies.reshape(*weight.shape[:2], *table.shape).transpose(1, 2)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:  # noqa: ARG004
        table = inputs[1]
        ctx.save_for_backward(table)
        ctx.save_for_forward(table)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (grad,), (table,) = grads, ctx.saved_tensors
        inverse = table.argsort(dim=1)
        return grad.gather(3, inverse[None, :, None].expand_as(grad)).sum(dim=1), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        (table,) = ctx.saved_tensors
        return permuted_copies(tangents[0], table)


class Expanded(nn.Module, ABC):
    """A layer whose filter bank is made from fewer numbers, its own parameters, by ``expand``.

    ``bank`` is the bank to compute with.  In evaluation mode, where no gradient is asked for, it is kept until a
    parameter changes; it is no part of a copy, of a file or of an exported graph, which hold the parameters or
    what ``expand`` makes of them.

    On a CPU a change is seen by the values.  On other devices, where comparing would make the host wait, it is seen
    by storage and version: after writing through ``parameter.data`` in place there, call ``eval()`` again.
    """

    def __init__(self) -> None:
        super().__init__()
        self._kept: _Kept | None = None

    @abstractmethod
    def expand(self) -> Tensor:
        """Return the ordinary filter bank, made anew."""

    def bank(self) -> Tensor:
        """The ordinary filter bank, the kept one where it may be."""
        own = tuple(self.parameters(recurse=False))
        if not self._may_keep(own):
            return self.expand()
        kept = self._kept
        if kept is None or not kept.holds_for(own):
            # not an inference tensor, which autograd would refuse later
            with torch.inference_mode(False), torch.no_grad():
                kept = _Kept.of(own, self.expand())
            self._kept = kept
        return kept.bank

    def _may_keep(self, own: tuple[Tensor, ...]) -> bool:
        if self.training or torch.compiler.is_compiling():
            return False
        if torch.is_grad_enabled() and any(parameter.requires_grad for parameter in own):
            return False
        # parameters in other guises are those of transforms (torch.func, fake tensors), and have no values to compare
        return all(type(parameter) is nn.Parameter and not parameter.is_meta for parameter in own)

    def train(self, mode: bool = True) -> Expanded:
        self._kept = None
        return super().train(mode)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": None}


@dataclass(frozen=True, eq=False)
class _Kept:
    """A bank and what it was made from: copies on a CPU, elsewhere the storage itself, which keeps its address."""

    made_from: tuple[tuple[Tensor, int], ...]
    bank: Tensor

    @staticmethod
    def of(parameters: tuple[Tensor, ...], bank: Tensor) -> _Kept:
        values = (p.detach().clone() if p.is_cpu else p.detach() for p in parameters)
        return _Kept(tuple(zip(values, map(_version, parameters), strict=True)), bank)

    def holds_for(self, parameters: tuple[Tensor, ...]) -> bool:
        return all(_unchanged(p, *old) for p, old in zip(parameters, self.made_from, strict=True))


def _unchanged(now: Tensor, before: Tensor, version: int) -> bool:
    if (now.dtype, now.device, now.shape) != (before.dtype, before.device, before.shape):
        return False
    if now.is_cpu:
        return torch.equal(now, before)
    return now.data_ptr() == before.data_ptr() and _version(now) == version


def _version(parameter: Tensor) -> int:
    return 0 if parameter.is_inference() else parameter._version


def check_sizes(inputs: int, outputs: int, stride: int, padding: int | None) -> None:
    """Refuse sizes that no convolution has.

    Raises:
        ValueError: fewer than one input, output or step, or a padding below 0.
    """
    for name, value in (("inputs", inputs), ("outputs", outputs), ("stride", stride)):
        if value < 1:
            raise ValueError(f"{name} is {value}; a convolution needs at least 1")
    if padding is not None and padding < 0:
        raise ValueError(f"padding is {padding}; it must be 0 or more, or None for kernel // 2")


def plain_conv(bank: Tensor, stride: int, padding: int, bias: Tensor | None = None) -> nn.Conv2d:
    """An ordinary convolution with a copy of a filter bank (outputs, inputs, k, k), and of a bias if there is one."""
    outputs, inputs, kernel, _ = bank.shape
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=bias is not None)
    conv.weight.data = bank.detach().clone()
    if bias is not None:
        conv.bias = nn.Parameter(bias.detach().clone())
    return conv
