"""How far any module is from commuting with a group: the equivariance error and the invariance error.

For a module f, an element g and its actions on the input and on the output,

    e(g) = |f(L_g x) - L_g f(x)| / |f(x)|,

once in the maximum norm and once in the Euclidean norm.  An equivariant module has e = 0 up to rounding; the
invariance error is the same with the identity in place of the second L_g.

Source: the question "how different are the representations of two images which differ only by" an element of a
group is that of the review of pooling and invariance, section 3.1; as a relative distance of two feature maps it
goes back to Lenc and Vedaldi 2015, "Understanding image representations by measuring their equivariance and
equivalence", and, counted in firing neurons, to Goodfellow et al. 2009, "Measuring invariances in deep networks".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from emboundary.model.group_conv import Fields, act_on_fields, turn
from emboundary.model.groups import Group

Action = Callable[[Group, int, Tensor], Tensor]
"""``(group, place, x) -> L_g x`` for the element at a place of ``group.elements``."""


@dataclass(frozen=True)
class ElementError:
    """The violation of one element.

    Attributes:
        element: its English name, e.g. ``rotate-90``.
        absolute_max, absolute_l2: ``|f(L_g x) - L_g f(x)|`` in the maximum and in the Euclidean norm; infinite where
            the two differ in shape, or where a value is not a number.
        relative_max, relative_l2: the same, divided by that norm of ``f(x)``.
    """

    element: str
    absolute_max: float
    absolute_l2: float
    relative_max: float
    relative_l2: float


@dataclass(frozen=True)
class Errors:
    """The violations of all elements of a group, in the order of ``group.elements``."""

    group: str
    elements: tuple[ElementError, ...]

    @property
    def worst(self) -> ElementError:
        """The element with the largest relative violation in the maximum norm."""
        return max(self.elements, key=lambda error: error.relative_max)


def on_pixels(group: Group, place: int, x: Tensor) -> Tensor:
    """``L_g`` of an image or of invariant maps (..., H, W): pixels move, channels stay."""
    return turn(group.elements[place], x)


def on_nothing(_group: Group, _place: int, x: Tensor) -> Tensor:
    """The identity: the action on what should be invariant, e.g. on class scores (N, C)."""
    return x


def on_fields(fields: Fields) -> Action:
    """``L_g`` of a feature map (N, C, H, W) with these fields: pixels move, every orbit is permuted."""
    return lambda group, place, x: act_on_fields(group, place, x, fields)


def equivariance_error(
    module: Callable[[Tensor], Tensor],
    x: Tensor,
    group: Group,
    *,
    act_in: Action = on_pixels,
    act_out: Action = on_pixels,
) -> Errors:
    """Measure ``|f(L_g x) - L_g f(x)|`` for every element of a group.

    ``module`` is used as it is: in evaluation mode its batch norms use their statistics; a module that draws
    random numbers is not a function, and what is measured then is its noise too.  No gradients are recorded.

    Raises:
        ValueError: an empty input or output.
    """
    if not x.numel():
        raise ValueError(f"x has the shape {tuple(x.shape)}; the error is measured on at least one value")
    with torch.no_grad():
        upright = module(x)
        if not upright.numel():
            raise ValueError(
                f"module gives the shape {tuple(upright.shape)} for x of shape {tuple(x.shape)}; "
                "the error is relative to at least one value: give a larger x"
            )
        found = [
            _error(group.element_name(place), module(act_in(group, place, x)), act_out(group, place, upright))
            for place in range(group.order)
        ]
    return Errors(group.name, tuple(found))


def invariance_error(
    module: Callable[[Tensor], Tensor], x: Tensor, group: Group, *, act_in: Action = on_pixels
) -> Errors:
    """Measure ``|f(L_g x) - f(x)|`` for every element of a group: that of a classifier's (N, C), for example.

    Raises:
        ValueError: as ``equivariance_error``.
    """
    return equivariance_error(module, x, group, act_in=act_in, act_out=on_nothing)


def _error(element: str, got: Tensor, wanted: Tensor) -> ElementError:
    if got.shape != wanted.shape:
        return ElementError(element, math.inf, math.inf, math.inf, math.inf)
    # NaN would slip through a comparison with a tolerance
    difference = torch.nan_to_num((got - wanted).abs(), nan=math.inf, posinf=math.inf)
    largest, length = float(difference.max()), float(difference.norm())
    return ElementError(
        element,
        largest,
        length,
        _relative(largest, float(wanted.abs().max())),
        _relative(length, float(wanted.norm())),
    )


def _relative(error: float, size: float) -> float:
    if not error:
        return 0.0
    return error / size if size and math.isfinite(error) else math.inf
