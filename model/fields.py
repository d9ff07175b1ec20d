"""What a feature map is made of, and how a group acts on it.

A map has ``regular`` fields, each an orbit of |G| channels that G permutes, and ``trivial`` fields, single channels
that G leaves in place (an image, or the result of coset pooling).  Channels are ordered field by field with the group
element fastest, then the trivial fields:

    (N, regular * |G| + trivial, H, W),   channel of field c, element h = c |G| + h

so that joining regular maps is plain concatenation.

Source: Cohen and Welling 2016, sections 4.4 (functions on a group) and 7.2 (their layout as channels).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from emboundary.model.groups import Group, Places


@dataclass(frozen=True)
class Fields:
    """How many regular and trivial fields a feature map has.

    Raises:
        ValueError: a number below 0.
    """

    regular: int = 0
    trivial: int = 0

    def __post_init__(self) -> None:
        for name in ("regular", "trivial"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; a number of fields is 0 or more")

    @classmethod
    def from_channels(cls, group: Group, channels: int) -> Fields:
        """The regular fields that ``channels`` channels are.

        Raises:
            ValueError: no channel, or a number that |G| does not divide.
        """
        if channels < 1 or channels % group.order:
            raise ValueError(
                f"channels is {channels}; regular fields over {group.name} have {group.order} channels each: "
                f"give a positive multiple of {group.order}"
            )
        return cls(regular=channels // group.order)

    def channels(self, group: Group) -> int:
        """Channels of such a map: ``regular * |G| + trivial``."""
        return self.regular * group.order + self.trivial


def act_on_fields(group: Group, place: int, x: Tensor, fields: Fields) -> Tensor:
    """``L_g x``: turn the pixels of a feature map (N, C, H, W) and permute its orbits.

    ``place`` is the element's place in the group.  This is the action that the law speaks of; the layers never call
    it.
    """
    turned = turn_pixels(group, place, x)
    regular, trivial = torch.split(turned, [fields.regular * group.order, fields.trivial], dim=1)
    # Channel k of the result comes from channel g^-1 k.
    return torch.cat([permute_orbits(regular, group.product[group.inverse[place]]), trivial], dim=1)


def permute_orbits(x: Tensor, source: Places) -> Tensor:
    """Permute the channels inside every orbit of ``len(source)``: channel k comes from channel ``source[k]``."""
    orbits = torch.unflatten(x, 1, (x.shape[1] // len(source), len(source)))
    return orbits.index_select(2, torch.as_tensor(source, device=x.device)).flatten(1, 2)


def turn(element: int, x: Tensor) -> Tensor:
    """Apply a D4 element to the last two axes (y, x) of a tensor; the same action as ``groups.act``."""
    out = x.transpose(-1, -2) if element & 4 else x
    dims = [axis for axis, bit in ((-2, 2), (-1, 1)) if element & bit]
    return out.flip(dims) if dims else out


def turn_pixels(group: Group, place: int, x: Tensor) -> Tensor:
    """Apply the element at a place to the last two axes: ``(g f)(u) = f(g^-1 u)``, u counted from the centre.

    A group outside D4 needs as many rows as columns, an odd number; pixels that some element takes out of the image
    (outside the hexagon, for C6 and D6) stay where they are.

    Raises:
        ValueError: a group outside D4 and an image that is not square, or of an even side.
    """
    if group.square:
        return turn(group.elements[place], x)
    height, width = x.shape[-2:]
    if height != width:
        raise ValueError(f"x is {height} x {width} pixels; {group.name} acts on as many rows as columns")
    source = torch.as_tensor(group.kernel_table(height)[place], device=x.device)
    return x.flatten(-2).index_select(-1, source).reshape(x.shape)
