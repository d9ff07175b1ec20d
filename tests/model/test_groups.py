import itertools

import numpy as np
import pytest

from emboundary.model.groups import C1, C2, C4, D4, GROUPS, Group, act, bits, inverse_element

EVERY_GROUP = pytest.mark.parametrize("group", GROUPS.values(), ids=GROUPS)
IMAGE = np.random.default_rng(0).random((2, 4, 5))


@EVERY_GROUP
def test_product_table_is_composition_of_actions(group: Group) -> None:
    for (a, left), (b, right) in itertools.product(enumerate(group.elements), repeat=2):
        both = act(left, act(right, IMAGE))
        np.testing.assert_array_equal(act(group.elements[group.product[a, b]], IMAGE), both)


@EVERY_GROUP
def test_rows_and_columns_of_the_product_table_are_permutations(group: Group) -> None:
    places = np.arange(group.order)
    for line in (*group.product, *group.product.T):
        np.testing.assert_array_equal(np.sort(line), places)


@EVERY_GROUP
def test_inverse_undoes_the_action(group: Group) -> None:
    for place, element in enumerate(group.elements):
        undone = act(group.elements[group.inverse[place]], act(element, IMAGE))
        np.testing.assert_array_equal(undone, IMAGE)


@EVERY_GROUP
def test_product_is_associative(group: Group) -> None:
    p = group.product
    for a, b, c in itertools.product(range(group.order), repeat=3):
        assert p[p[a, b], c] == p[a, p[b, c]]


@pytest.mark.parametrize(("group", "order"), [(C1, 1), (C2, 2), (C4, 4), (D4, 8)])
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
