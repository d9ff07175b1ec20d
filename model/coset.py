"""Pooling over the cosets of a subgroup, pooling onto a subgroup, and the same map seen as one over a subgroup.

A regular field over G is a function f on G.  For a subgroup H it can be

- pooled over the cosets g H, which stays equivariant to all of G (``coset_pool``);
- pooled onto H, which is equivariant to H alone (``subgroup_pool``);
- regrouped, nothing lost, as |G| / |H| regular fields over H (``restrict``).

Source: Cohen and Welling 2016, section 6.3.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from emboundary.model.fields import permute_orbits, turn_pixels
from emboundary.model.groups import Group, Places

How = Literal["max", "mean"]


def coset_max(x: Tensor, order: int) -> Tensor:
    """Coset pooling over the whole group: the maximum of every orbit; an invariant map.

    Shapes: (N, fields * |G|, H, W) -> (N, fields, H, W).

    Raises:
        ValueError: channels that ``order`` does not divide.

    Source: Cohen and Welling 2016, section 6.3.
    """
    return x if order == 1 else split_orbits(x, order).amax(dim=2)


def coset_pool(x: Tensor, group: Group, subgroup: Group, how: How = "max") -> Tensor:
    """The maximum or mean over every coset g H of every regular field: ``y(g H) = max_h x(g h)``.

    The result is a function on G / H: |G| / |H| channels for each field, in the order of ``group.cosets(subgroup)``,
    with ``(L_u y)(g H) = y(u^-1 g H)`` (``act_on_cosets``).  With H = G that is one invariant channel, a trivial
    field; with H = C1 the map itself.  With H normal (``group.is_normal``) the cosets are the group G / H and G
    permutes them as this group permutes itself, H leaving all in place: over D4 / C4 a rotation changes nothing and
    every mirror swaps the two channels.  With H not normal G still permutes them (``group.coset_action``), but the
    elements that leave all in place are only those common to all conjugates of H.

    Shapes: (N, fields * |G|, H, W) -> (N, fields * |G| / |H|, H, W).

    Raises:
        ValueError: ``subgroup`` is none of ``group``, channels that |G| does not divide, or another ``how``.

    Source: Cohen and Welling 2016, section 6.3 and equation 16 with the domain U = H.
    """
    return _pool_domains(x, group.cosets(subgroup), how)


def subgroup_pool(x: Tensor, group: Group, subgroup: Group, how: How = "max") -> Tensor:
    """Pooling with stride in the group: ``y(h) = max_u x(h u)``, h in H and u one element of every coset H u.

    The result is a regular field over H, equivariant to H and no longer to G.  The elements u are those of least
    place: for D4 onto C4 the identity and a mirror.

    Shapes: (N, fields * |G|, H, W) -> (N, fields * |H|, H, W).

    Raises:
        ValueError: as ``coset_pool``.

    Source: Cohen and Welling 2016, section 6.3 (subsampling on a subgroup) and equation 16.
    """
    return _pool_domains(x, group.right_cosets(subgroup).T, how)


def restrict(x: Tensor, group: Group, subgroup: Group) -> Tensor:
    """A map of regular fields over G as one over H: each becomes |G| / |H| fields, one for every coset H u.

    Only the order of channels changes: ``y_u(h) = x(h u)``, the field of u at place c |G| / |H| + u.

    Shapes: (N, fields * |G|, H, W), the same.

    Raises:
        ValueError: ``subgroup`` is none of ``group``, or channels that |G| does not divide.
    """
    places = group.right_cosets(subgroup).ravel()
    return permute_orbits(split_orbits(x, group.order).flatten(1, 2), places)


def act_on_cosets(group: Group, subgroup: Group, place: int, x: Tensor) -> Tensor:
    """``L_u`` of what ``coset_pool`` gives, u at ``place``: turn the pixels; channel g H comes from ``u^-1 g H``."""
    turned = turn_pixels(group, place, x)
    return permute_orbits(turned, group.coset_action(subgroup)[group.inverse[place]])


class _OrbitPool2d(nn.Module):
    """Pooling over domains of places, (new channels of a field, places in a domain)."""

    def __init__(self, domains: Places, how: How) -> None:
        super().__init__()
        self.shape = domains.shape
        self.how: How = _checked(how)
        self.register_buffer("_places", _selected(domains), persistent=False)
        self._places: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        return _pool(x, self.shape, self._places, self.how)


class CosetPool2d(_OrbitPool2d):
    """``coset_pool`` as a layer.

    Shapes: (N, fields * |G|, H, W) -> (N, fields * |G| / |H|, H, W).

    Raises:
        ValueError: ``subgroup`` is none of ``group``, or another ``how`` than "max" and "mean".
    """

    def __init__(self, group: Group, subgroup: Group, how: How = "max") -> None:
        super().__init__(group.cosets(subgroup), how)


class SubgroupPool2d(_OrbitPool2d):
    """``subgroup_pool`` as a layer.

    Shapes: (N, fields * |G|, H, W) -> (N, fields * |H|, H, W).

    Raises:
        ValueError: as ``CosetPool2d``.
    """

    def __init__(self, group: Group, subgroup: Group, how: How = "max") -> None:
        super().__init__(group.right_cosets(subgroup).T, how)


def split_orbits(x: Tensor, order: int) -> Tensor:
    """(N, fields * |G|, H, W) as (N, fields, |G|, H, W).

    Raises:
        ValueError: channels that ``order`` does not divide.
    """
    if x.shape[1] % order:
        raise ValueError(
            f"x has {x.shape[1]} channels, which are no whole number of orbits of {order}; give regular fields only, "
            "over the group that the layer was made for"
        )
    return torch.unflatten(x, 1, (x.shape[1] // order, order))


def _pool(x: Tensor, shape: tuple[int, ...], places: Tensor | None, how: How) -> Tensor:
    orbits = split_orbits(x, math.prod(shape))
    if places is not None:
        orbits = orbits.index_select(2, places)
    domains = torch.unflatten(orbits, 2, shape)  # (N, fields, new channels of a field, places in a domain, H, W)
    return (domains.amax(dim=3) if how == "max" else domains.mean(dim=3)).flatten(1, 2)


def _pool_domains(x: Tensor, domains: Places, how: How) -> Tensor:
    places = _selected(domains)
    return _pool(x, domains.shape, None if places is None else places.to(x.device), _checked(how))


def _selected(domains: Places) -> Tensor | None:
    """The places in the order in which they are pooled; None if that is the order in which they lie."""
    places = domains.ravel()
    return None if np.array_equal(places, np.arange(len(places))) else torch.as_tensor(places)


def _checked(how: How) -> How:
    if how not in get_args(How):
        raise ValueError(f"how is {how!r}; pooling takes {' or '.join(map(repr, get_args(How)))} of a domain")
    return how
