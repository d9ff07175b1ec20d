"""The planar point groups C1, C2, C4 and D4: their elements, their tables, their action on arrays.

Every element of D4 is a signed permutation of the two image axes.  It is written here as "transpose
first, then flip": three bits ``(transpose, flip_y, flip_x)`` whose number ``4 t + 2 fy + fx`` is the
element's index.  The elements 0..3 keep the axes (a 1x7 kernel stays 1x7), the elements 4..7 swap them.

    0 identity          4 transpose (mirror in the main diagonal)
    1 mirror in x       5 rotation by 270 degrees
    2 mirror in y       6 rotation by 90 degrees (counter-clockwise, as numpy.rot90)
    3 rotation by 180   7 mirror in the other diagonal

Source: Cohen and Welling 2016, "Group equivariant convolutional networks", section 4 (p4 and p4m; the
point groups here are what is left of those when translations are set aside).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Bits = tuple[bool, bool, bool]
Scalar = TypeVar("Scalar", bound=np.generic)

_ELEMENT_NAMES = (
    "identity",
    "mirror-x",
    "mirror-y",
    "rotate-180",
    "transpose",
    "rotate-270",
    "rotate-90",
    "anti-transpose",
)


def bits(element: int) -> Bits:
    """Return ``(transpose, flip_y, flip_x)`` of a D4 element index.

    Raises:
        ValueError: ``element`` is not in 0..7.
    """
    if not 0 <= element <= 7:
        raise ValueError(f"element is {element!r}; a D4 element is a number from 0 to 7 (see the table in groups.py)")
    return bool(element & 4), bool(element & 2), bool(element & 1)


def act(element: int, array: NDArray[Scalar]) -> NDArray[Scalar]:
    """Apply a D4 element to the last two axes (y, x) of an array: ``(g f)(u) = f(g^-1 u)``.

    Returns a view; the axes change places when the element swaps them.
    """
    transpose, flip_y, flip_x = bits(element)
    out = array.swapaxes(-1, -2) if transpose else array
    if flip_y:
        out = out[..., ::-1, :]
    return out[..., ::-1] if flip_x else out


def _compose(left: int, right: int) -> int:
    """Index of "first ``right``, then ``left``": ``act(left, act(right, f))``."""
    probe = np.arange(4).reshape(2, 2)
    wanted = act(left, act(right, probe))
    return next(e for e in range(8) if np.array_equal(act(e, probe), wanted))


@dataclass(frozen=True)
class Group:
    """A subgroup of D4, its elements in ascending order of their D4 index.

    Attributes:
        name: "C1", "C2", "C4" or "D4".
        elements: D4 indices; the position in this tuple is the element's place in a feature map's orbit axis.
    """

    name: str
    elements: tuple[int, ...]

    @property
    def order(self) -> int:
        """Number of elements, |G|."""
        return len(self.elements)

    @cached_property
    def product(self) -> NDArray[np.int64]:
        """Cayley table of places: ``product[a, b]`` is the place of "first b, then a"; shape (|G|, |G|)."""
        place = {e: i for i, e in enumerate(self.elements)}
        return np.array([[place[_compose(a, b)] for b in self.elements] for a in self.elements], dtype=np.int64)

    @cached_property
    def inverse(self) -> NDArray[np.int64]:
        """``inverse[a]`` is the place of the inverse of the element at place ``a``; shape (|G|,)."""
        return np.asarray(np.argmax(self.product == self.elements.index(0), axis=1), dtype=np.int64)

    def element_name(self, place: int) -> str:
        """English name of the element at a place, e.g. ``rotate-90``."""
        return _ELEMENT_NAMES[self.elements[place]]


C1 = Group("C1", (0,))
C2 = Group("C2", (0, 3))
C4 = Group("C4", (0, 3, 5, 6))
D4 = Group("D4", tuple(range(8)))

GROUPS = {group.name: group for group in (C1, C2, C4, D4)}


def inverse_element(element: int) -> int:
    """D4 index of the inverse of a D4 element."""
    return int(D4.inverse[element])
