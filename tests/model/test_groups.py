import itertools

import numpy as np
import pytest

from emboundary.model.groups import (
    C1,
    C2,
    C4,
    C6,
    D1,
    D2,
    D4,
    D6,
    GROUPS,
    Group,
    act,
    bits,
    find_group,
    inverse_element,
)

EVERY_GROUP = pytest.mark.parametrize("group", [*GROUPS.values(), C6, D6], ids=[*GROUPS, "C6", "D6"])
SQUARE_GROUP = pytest.mark.parametrize("group", GROUPS.values(), ids=GROUPS)
IDENTITY, QUARTER, SIXTH = ((1, 0), (0, 1)), ((0, -1), (1, 0)), ((0, -1), (1, 1))
IMAGE = np.random.default_rng(0).random((2, 4, 5))


@SQUARE_GROUP
def test_product_table_is_composition_of_actions(group: Group) -> None:
    for (a, left), (b, right) in itertools.product(enumerate(group.elements), repeat=2):
        both = act(left, act(right, IMAGE))
        np.testing.assert_array_equal(act(group.elements[group.product[a, b]], IMAGE), both)


@EVERY_GROUP
def test_rows_and_columns_of_the_product_table_are_permutations(group: Group) -> None:
    places = np.arange(group.order)
    for line in (*group.product, *group.product.T):
        np.testing.assert_array_equal(np.sort(line), places)


@SQUARE_GROUP
def test_inverse_undoes_the_action(group: Group) -> None:
    for place, element in enumerate(group.elements):
        undone = act(group.elements[group.inverse[place]], act(element, IMAGE))
        np.testing.assert_array_equal(undone, IMAGE)


@EVERY_GROUP
def test_inverse_times_element_is_the_identity_and_the_identity_comes_first(group: Group) -> None:
    places = np.arange(group.order)
    np.testing.assert_array_equal(group.product[0], places)
    np.testing.assert_array_equal(group.product[:, 0], places)
    assert not group.product[group.inverse, places].any()
    assert not group.product[places, group.inverse].any()


@EVERY_GROUP
def test_product_is_associative(group: Group) -> None:
    p = group.product
    for a, b, c in itertools.product(range(group.order), repeat=3):
        assert p[p[a, b], c] == p[a, p[b, c]]


@pytest.mark.parametrize(("group", "order"), [(C1, 1), (C2, 2), (C4, 4), (D1, 2), (D2, 4), (D4, 8)])
def test_order_and_identity(group: Group, order: int) -> None:
    assert group.order == len(set(group.elements)) == order
    assert group.elements[0] == 0
    np.testing.assert_array_equal(act(0, IMAGE), IMAGE)


def test_the_eight_actions_differ() -> None:
    square = np.arange(9).reshape(3, 3)
    assert len({act(e, square).tobytes() for e in D4.elements}) == 8


@pytest.mark.parametrize(
    ("element", "name", "expected"),
    [
        (0, "identity", IMAGE),
        (1, "mirror-x", np.flip(IMAGE, -1)),
        (2, "mirror-y", np.flip(IMAGE, -2)),
        (3, "rotate-180", np.rot90(IMAGE, 2, axes=(-2, -1))),
        (4, "transpose", np.swapaxes(IMAGE, -1, -2)),
        (5, "rotate-270", np.rot90(IMAGE, 3, axes=(-2, -1))),
        (6, "rotate-90", np.rot90(IMAGE, axes=(-2, -1))),
        (7, "anti-transpose", np.swapaxes(np.rot90(IMAGE, 2, axes=(-2, -1)), -1, -2)),
    ],
)
def test_every_element_does_what_its_name_says(element: int, name: str, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(act(element, IMAGE), expected)
    assert D4.element_name(element) == name


def test_names_follow_places_not_indices() -> None:
    assert [C4.element_name(place) for place in range(4)] == ["identity", "rotate-180", "rotate-270", "rotate-90"]


@pytest.mark.parametrize("element", [0, 1, 2, 3])
def test_elements_below_four_keep_the_axes(element: int) -> None:
    assert act(element, IMAGE).shape == IMAGE.shape
    assert act(element + 4, IMAGE).shape == (2, 5, 4)


def test_action_is_a_view() -> None:
    assert all(np.shares_memory(act(e, IMAGE), IMAGE) for e in D4.elements)


def test_rotations_are_each_others_inverse_and_mirrors_their_own() -> None:
    assert [inverse_element(e) for e in D4.elements] == [0, 1, 2, 3, 4, 6, 5, 7]


@pytest.mark.parametrize("element", [-1, 8])
def test_a_number_that_is_no_element_is_refused(element: int) -> None:
    with pytest.raises(ValueError, match=rf"^element is {element}; a D4 element is a number from 0 to 7"):
        bits(element)


@SQUARE_GROUP
@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5])
def test_kernel_table_is_the_action_on_an_array_of_entries(group: Group, kernel: int) -> None:
    entries = np.arange(kernel * kernel).reshape(kernel, kernel)
    wanted = [act(element, entries).ravel() for element in group.elements]
    np.testing.assert_array_equal(group.kernel_table(kernel), wanted)
    np.testing.assert_array_equal(group.kernel_taps(kernel), entries.ravel())


@EVERY_GROUP
def test_kernel_table_turns_as_the_group_multiplies(group: Group) -> None:
    table = group.kernel_table(5)
    for a, b in itertools.product(range(group.order), repeat=2):
        np.testing.assert_array_equal(table[b][table[a]], table[group.product[a, b]])


def test_a_kernel_of_a_hexagonal_lattice_is_a_hexagon() -> None:
    hexagon = [[0, 1, 1], [1, 1, 1], [1, 1, 0]]
    np.testing.assert_array_equal(C6.kernel_taps(3), np.flatnonzero(np.ravel(hexagon)))
    assert [D6.kernel_taps(kernel).size for kernel in (1, 3, 5, 7)] == [1, 7, 19, 37]
    # once round the centre in six steps, through all six neighbours
    step, neighbour, seen = C6.kernel_table(3)[1], 1, []
    for _ in range(6):
        seen.append(neighbour)
        neighbour = step[neighbour]
    assert (neighbour, sorted(seen)) == (1, [1, 2, 3, 5, 6, 7])


@SQUARE_GROUP
def test_a_group_is_its_matrices_in_any_order_under_any_name(group: Group) -> None:
    again = Group.from_matrices("mine", [np.array(matrix) for matrix in reversed(group.matrices)])
    assert (again, again.elements) == (group, group.elements)
    assert hash(again) == hash(group)
    assert again.name == "mine"


def test_groups_by_their_generators() -> None:
    assert Group.generated_by("C4", [QUARTER]) == C4
    assert Group.generated_by("D4", [QUARTER, ((1, 0), (0, -1))]) == D4
    assert Group.generated_by("C1", []) == C1
    assert (C6.order, D6.order) == (6, 12)
    assert C6.element_name(0) == "identity"
    assert C6.element_name(1) == "((0, -1), (1, 1))"


@pytest.mark.parametrize(
    ("matrices", "message"),
    [
        ([], r"do not begin with the identity \(\(1, 0\), \(0, 1\)\); a group has it: put it first$"),
        ([QUARTER], r"do not begin with the identity"),
        ([IDENTITY, ((2, 0), (0, 1))], r"hold \(\(2, 0\), \(0, 1\)\) of determinant 2; an element maps the grid onto"),
        ([IDENTITY, IDENTITY], r"hold \(\(1, 0\), \(0, 1\)\) more than once; give every element once$"),
        ([IDENTITY, QUARTER], r"are not closed: .* is \(\(-1, 0\), \(0, -1\)\), which is not among them; add it"),
        ([IDENTITY, ((0.5, 0), (0, 2))], r"hold \(\(0.5, 0\), \(0, 2\)\); give 2 x 2 integers$"),
        ([(1, 0)], r"hold \(1, 0\); give 2 x 2 integers$"),
    ],
)
def test_matrices_that_are_no_group_are_refused(matrices: list[object], message: str) -> None:
    with pytest.raises(ValueError, match="^matrices of group 'mine' " + message):
        Group.from_matrices("mine", matrices)


def test_generators_of_an_infinite_group_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^generators of group 'shear' are .*; their products do not end: a finite"):
        Group.generated_by("shear", [((1, 1), (0, 1))])


@pytest.mark.parametrize("elements", [(0, 5), (1, 2)])
def test_elements_that_are_no_group_are_refused(elements: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"^matrices of group 'mine' (are not closed|do not begin)"):
        Group.from_elements("mine", elements)


def test_elements_of_a_group_outside_d4_have_no_index() -> None:
    assert (C6.square, D4.square) == (False, True)
    with pytest.raises(
        ValueError, match=r"^group 'C6' is no subgroup of D4, so that its elements have no D4 index; use"
    ):
        C6.elements  # noqa: B018


@pytest.mark.parametrize("name", GROUPS)
def test_groups_are_found_by_name(name: str) -> None:
    assert find_group(name) is GROUPS[name]


@pytest.mark.parametrize("name", ["p4m", "d4", ""])
def test_an_unknown_group_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"^group is '{name}'; known groups are C1, C2, C4, D1, D2, D4 \(others"):
        find_group(name)


@pytest.mark.parametrize("kernel", [0, -3])
def test_a_kernel_without_entries_is_refused(kernel: int) -> None:
    with pytest.raises(ValueError, match=rf"^kernel is {kernel}; it must be a number of pixels from 1$"):
        D4.kernel_table(kernel)


def test_an_even_kernel_of_a_hexagonal_lattice_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^kernel is 4, and group 'D6' does not map the entries of an even kernel"):
        D6.kernel_taps(4)


SUBGROUPS = [
    (group, subgroup)
    for group in (*GROUPS.values(), D6)
    for subgroup in (*GROUPS.values(), C6)
    if set(subgroup.matrices) <= set(group.matrices)
]
EVERY_SUBGROUP = pytest.mark.parametrize(
    ("group", "subgroup"), SUBGROUPS, ids=[f"{group.name}-{subgroup.name}" for group, subgroup in SUBGROUPS]
)


@EVERY_SUBGROUP
def test_cosets_partition_the_group(group: Group, subgroup: Group) -> None:
    for cosets in (group.cosets(subgroup), group.right_cosets(subgroup)):
        assert cosets.shape == (group.order // subgroup.order, subgroup.order)
        np.testing.assert_array_equal(np.sort(cosets.ravel()), np.arange(group.order))
        np.testing.assert_array_equal(cosets[0], group.places_of(subgroup))
        assert (np.diff(cosets[:, 0]) > 0).all()


@EVERY_SUBGROUP
def test_left_cosets_are_products_with_the_subgroup_behind_and_right_ones_before(group: Group, subgroup: Group) -> None:
    members = group.places_of(subgroup)
    for g, *rest in group.cosets(subgroup):
        np.testing.assert_array_equal([g, *rest], group.product[g, members])
    for g, *rest in group.right_cosets(subgroup):
        np.testing.assert_array_equal([g, *rest], group.product[members, g])


@EVERY_SUBGROUP
def test_the_group_acts_on_cosets(group: Group, subgroup: Group) -> None:
    action = group.coset_action(subgroup)
    for a, b in itertools.product(range(group.order), repeat=2):
        np.testing.assert_array_equal(action[a][action[b]], action[group.product[a, b]])
    stays = [place for place in range(group.order) if action[place, 0] == 0]
    assert stays == sorted(group.places_of(subgroup)), "what leaves H in place is H"


@pytest.mark.parametrize(("subgroup", "normal"), [(C1, True), (C2, True), (C4, True), (D2, True), (D1, False)])
def test_normal_subgroups_of_d4(subgroup: Group, normal: bool) -> None:
    assert D4.is_normal(subgroup) is normal


def test_a_group_that_is_no_subgroup_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^subgroup is 'D1', whose element mirror-x is not in 'C4'; give a group all"):
        C4.cosets(D1)
