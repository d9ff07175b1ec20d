"""Planar point groups: their elements, their tables, their action on arrays and on kernels.

An element is an integer 2 x 2 matrix with determinant 1 or -1 that maps offsets (y, x) from the centre, so that it
maps the grid of pixels onto itself; a group is a set of such matrices that is closed under products.  The groups of
square pixels are D4 and its subgroups C1, C2, C4, D1 and D2.

Every element of D4 is a signed permutation of the two image axes.  It is written here as "transpose
first, then flip": three bits ``(transpose, flip_y, flip_x)`` whose number ``4 t + 2 fy + fx`` is the
element's index.  The elements 0..3 keep the axes (a 1x7 kernel stays 1x7), the elements 4..7 swap them.

    0 identity          4 transpose (mirror in the main diagonal)
    1 mirror in x       5 rotation by 270 degrees
    2 mirror in y       6 rotation by 90 degrees (counter-clockwise, as numpy.rot90)
    3 rotation by 180   7 mirror in the other diagonal

A new group is its matrices: ``Group.from_matrices`` or ``Group.generated_by``.  C6 and D6 are those of a hexagonal
lattice whose pixels are stored by two axes at 60 degrees; a square array holds a hexagon of them, and kernel entries
outside the hexagon are left out.

Source: Cohen and Welling 2016, "Group equivariant convolutional networks", section 4 (p4 and p4m; the
point groups here are what is left of those when translations are set aside), section 7.1 (a group is added as a map
from indices to matrices) and section 9 (hexagonal lattices).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Bits = tuple[bool, bool, bool]
Matrix = tuple[tuple[int, int], tuple[int, int]]
Places = NDArray[np.int64]
Scalar = TypeVar("Scalar", bound=np.generic)

_IDENTITY: Matrix = ((1, 0), (0, 1))
_LARGEST_ORDER = 12  # of a finite group of integer 2 x 2 matrices

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


def _matrix(element: int) -> Matrix:
    """Where a D4 element takes an offset (y, x)."""
    transpose, flip_y, flip_x = bits(element)
    y, x = -1 if flip_y else 1, -1 if flip_x else 1
    return ((0, y), (x, 0)) if transpose else ((y, 0), (0, x))


_D4_INDEX = {_matrix(element): element for element in range(8)}


@dataclass(frozen=True)
class Group:
    """A finite group of integer matrices; made with ``from_elements``, ``from_matrices`` or ``generated_by``.

    Groups of the same matrices are equal, whatever their names.

    Attributes:
        name: For people and configurations, e.g. "D4".
        matrices: The elements, each the map of offsets (y, x) from the centre, the identity first; the position in
            this tuple is the element's *place*, its place in a feature map's orbit axis too.  Those of a subgroup
            of D4 are in ascending order of their D4 index.

    Raises:
        ValueError: a matrix with another determinant than 1 or -1, a matrix twice, no identity, or a product that
            is not among the matrices.
    """

    name: str = field(compare=False)
    matrices: tuple[Matrix, ...]

    def __post_init__(self) -> None:
        what = f"matrices of group {self.name!r}"
        for matrix in self.matrices:
            (a, b), (c, d) = matrix
            if abs(a * d - b * c) != 1:
                raise ValueError(
                    f"{what} hold {matrix} of determinant {a * d - b * c}; an element maps the grid onto itself: "
                    "give integer matrices of determinant 1 or -1"
                )
            if self.matrices.count(matrix) > 1:
                raise ValueError(f"{what} hold {matrix} more than once; give every element once")
        if self.matrices[:1] != (_IDENTITY,):
            raise ValueError(f"{what} do not begin with the identity {_IDENTITY}; a group has it: put it first")
        for left in self.matrices:
            for right in self.matrices:
                if (both := _times(left, right)) not in self.matrices:
                    raise ValueError(
                        f"{what} are not closed: {left} times {right} is {both}, which is not among them; add it, "
                        "or give generators to Group.generated_by"
                    )

    @classmethod
    def from_elements(cls, name: str, elements: Iterable[int]) -> Group:
        """A subgroup of D4 by its D4 indices, in any order."""
        return cls(name, tuple(_matrix(element) for element in sorted(elements)))

    @classmethod
    def from_matrices(cls, name: str, matrices: Iterable[Iterable[Iterable[int]]]) -> Group:
        """A group by its matrices, nested sequences or arrays, in any order.

        Raises:
            ValueError: a matrix that is not 2 x 2 integers, or anything that makes the set no group (see the class).
        """
        given = [_as_matrix(name, matrix) for matrix in matrices]
        # D4 by index, so that its subgroups are equal however they are given; others as they come
        square = all(matrix in _D4_INDEX for matrix in given)
        return cls(name, tuple(sorted(given, key=lambda m: _D4_INDEX[m] if square else m != _IDENTITY)))

    @classmethod
    def generated_by(cls, name: str, generators: Iterable[Iterable[Iterable[int]]]) -> Group:
        """The smallest group that holds some matrices.

        Raises:
            ValueError: a matrix that is not 2 x 2 integers or has another determinant than 1 or -1, or generators of
                an infinite group.
        """
        steps = [_as_matrix(name, matrix) for matrix in generators]
        found = [_IDENTITY]
        for matrix in found:  # grows while it is walked
            found += dict.fromkeys(m for step in steps if (m := _times(step, matrix)) not in found)
            if len(found) > _LARGEST_ORDER:
                raise ValueError(
                    f"generators of group {name!r} are {steps}; their products do not end: a finite group of integer "
                    f"matrices has at most {_LARGEST_ORDER} elements"
                )
        return cls.from_matrices(name, found)

    @property
    def order(self) -> int:
        """Number of elements, |G|."""
        return len(self.matrices)

    @cached_property
    def square(self) -> bool:
        """Whether every element maps square pixels onto square pixels: a subgroup of D4."""
        return all(matrix in _D4_INDEX for matrix in self.matrices)

    @cached_property
    def elements(self) -> tuple[int, ...]:
        """D4 indices of the elements, by place.

        Raises:
            ValueError: the group is not a subgroup of D4.
        """
        if not self.square:
            raise ValueError(
                f"group {self.name!r} is no subgroup of D4, so that its elements have no D4 index; "
                "use its matrices, or kernel_table"
            )
        return tuple(_D4_INDEX[matrix] for matrix in self.matrices)

    @cached_property
    def product(self) -> Places:
        """Cayley table of places: ``product[a, b]`` is the place of "first b, then a"; shape (|G|, |G|)."""
        place = {matrix: i for i, matrix in enumerate(self.matrices)}
        return np.array([[place[_times(a, b)] for b in self.matrices] for a in self.matrices], dtype=np.int64)

    @cached_property
    def inverse(self) -> Places:
        """``inverse[a]`` is the place of the inverse of the element at place ``a``; shape (|G|,)."""
        return np.asarray(np.argmax(self.product == 0, axis=1), dtype=np.int64)

    def element_name(self, place: int) -> str:
        """English name of the element at a place, e.g. ``rotate-90``; its matrix if it is not of D4."""
        matrix = self.matrices[place]
        return _ELEMENT_NAMES[_D4_INDEX[matrix]] if matrix in _D4_INDEX else str(matrix)

    def kernel_table(self, kernel: int) -> Places:
        """Where each entry of a turned k x k filter is found in the filter: ``(g psi)(u) = psi(g^-1 u)``.

        Every row is a permutation.  Entries that some element takes out of the window stay in their place; there
        are none for subgroups of D4 (see ``kernel_taps``).  Shape (|G|, k * k).

        Raises:
            ValueError: a kernel below 1, or an even one whose entries the group does not map onto entries.

        Source: Cohen and Welling 2016, section 7.1.
        """
        sources, inside = self._kernel_sources(kernel)
        return np.where(inside.all(axis=0), sources, np.arange(kernel * kernel))

    def kernel_taps(self, kernel: int) -> Places:
        """The entries of a k x k kernel that no element takes out of the window, ascending.

        All of them for subgroups of D4; a hexagon for C6 and D6.
        """
        _, inside = self._kernel_sources(kernel)
        return np.flatnonzero(inside.all(axis=0)).astype(np.int64)

    def _kernel_sources(self, kernel: int) -> tuple[Places, NDArray[np.bool_]]:
        """For each element and entry: the entry it comes from, and whether that lies in the window."""
        if kernel < 1:
            raise ValueError(f"kernel is {kernel}; it must be a number of pixels from 1")
        last = kernel - 1
        offsets = 2 * np.indices((kernel, kernel)).reshape(2, -1) - last  # from the centre, in half pixels
        matrices = np.array([self.matrices[place] for place in self.inverse])
        found = matrices @ offsets + last  # (|G|, 2, k * k)
        if (found % 2).any():
            raise ValueError(
                f"kernel is {kernel}, and group {self.name!r} does not map the entries of an even kernel onto each "
                "other; use an odd one"
            )
        y, x = found[:, 0] // 2, found[:, 1] // 2
        return y * kernel + x, (np.minimum(y, x) >= 0) & (np.maximum(y, x) < kernel)

    def places_of(self, subgroup: Group) -> Places:
        """Places of a subgroup's elements in this group, by their place in the subgroup; shape (|H|,).

        Raises:
            ValueError: ``subgroup`` is not one.
        """
        for place, matrix in enumerate(subgroup.matrices):
            if matrix not in self.matrices:
                raise ValueError(
                    f"subgroup is {subgroup.name!r}, whose element {subgroup.element_name(place)} is not in "
                    f"{self.name!r}; give a group all of whose elements are"
                )
        return np.array([self.matrices.index(matrix) for matrix in subgroup.matrices], dtype=np.int64)

    def cosets(self, subgroup: Group) -> Places:
        """The cosets g H, each by the places of its elements ``g h``; shape (|G| / |H|, |H|).

        Cosets are in ascending order of their least place, so that the first is H itself; g is the least place and
        h follows the order of H.
        """
        return self._partition(self.product[:, self.places_of(subgroup)])

    def right_cosets(self, subgroup: Group) -> Places:
        """The cosets H g, each by the places of its elements ``h g``; shape (|G| / |H|, |H|); ordered as ``cosets``."""
        return self._partition(self.product[self.places_of(subgroup)].T)

    def _partition(self, orbits: Places) -> Places:
        """Of the rows, row g the coset of g, those that begin with their least place."""
        cosets: Places = orbits[orbits[:, 0] == orbits.min(axis=1)]
        return cosets

    def coset_action(self, subgroup: Group) -> Places:
        """``[g, j]`` is the place in ``cosets`` of g times the coset at place j; shape (|G|, |G| / |H|)."""
        cosets = self.cosets(subgroup)
        coset_of = np.empty(self.order, dtype=np.int64)
        coset_of[cosets] = np.arange(len(cosets))[:, None]
        return coset_of[self.product[:, cosets[:, 0]]]

    def is_normal(self, subgroup: Group) -> bool:
        """Whether g H = H g for every g, so that the cosets are a group themselves, G / H."""
        left, right = self.cosets(subgroup), self.right_cosets(subgroup)
        return bool(np.array_equal(np.sort(left, axis=1), np.sort(right, axis=1)))


def _times(left: Matrix, right: Matrix) -> Matrix:
    """The matrix of "first ``right``, then ``left``"."""
    (a, b), (c, d) = left
    (e, f), (g, h) = right
    return ((a * e + b * g, a * f + b * h), (c * e + d * g, c * f + d * h))


def _as_matrix(name: str, given: Iterable[Iterable[int]]) -> Matrix:
    array = np.asarray(given)
    if array.shape != (2, 2) or array.dtype.kind not in "iu":
        raise ValueError(f"matrices of group {name!r} hold {given!r}; give 2 x 2 integers")
    (a, b), (c, d) = array.tolist()
    return ((a, b), (c, d))


C1 = Group.from_elements("C1", (0,))
C2 = Group.from_elements("C2", (0, 3))
C4 = Group.from_elements("C4", (0, 3, 5, 6))
D1 = Group.from_elements("D1", (0, 1))
D2 = Group.from_elements("D2", (0, 1, 2, 3))
D4 = Group.from_elements("D4", range(8))

# The groups of square pixels that configurations know by name.
GROUPS = {group.name: group for group in (C1, C2, C4, D1, D2, D4)}

# Of a hexagonal lattice: turn by 60 degrees, and mirror by exchange of the two axes.
C6 = Group.generated_by("C6", [((0, -1), (1, 1))])
D6 = Group.generated_by("D6", [((0, -1), (1, 1)), ((0, 1), (1, 0))])


def find_group(name: str) -> Group:
    """The group of square pixels with a name: C1, C2, C4, D1 (mirror in x), D2 (both mirrors) or D4.

    Raises:
        ValueError: there is none with this name.
    """
    if name not in GROUPS:
        raise ValueError(
            f"group is {name!r}; known groups are {', '.join(GROUPS)} (others: Group.from_matrices in model/groups.py)"
        )
    return GROUPS[name]


def inverse_element(element: int) -> int:
    """D4 index of the inverse of a D4 element."""
    return int(D4.inverse[element])
