import pytest
import torch

from emboundary.model.coset import (
    CosetPool2d,
    SubgroupPool2d,
    act_on_cosets,
    coset_max,
    coset_pool,
    restrict,
    subgroup_pool,
)
from emboundary.model.fields import Fields, act_on_fields
from emboundary.model.groups import C1, C4, D1, D4, GROUPS

X = torch.randn(2, 16, 4, 6)


def test_pooling_over_cosets_takes_the_elements_of_a_coset() -> None:
    for subgroup in (group for group in GROUPS.values() if set(group.matrices) <= set(D4.matrices)):
        cosets = D4.cosets(subgroup).tolist()
        highest, mean = coset_pool(X, D4, subgroup), coset_pool(X, D4, subgroup, "mean")
        for field in range(2):
            for place, coset in enumerate(cosets):
                members = X[:, [field * 8 + element for element in coset]]
                assert torch.equal(highest[:, field * len(cosets) + place], members.amax(dim=1))
                torch.testing.assert_close(mean[:, field * len(cosets) + place], members.mean(dim=1))


def test_over_the_whole_group_it_is_the_maximum_and_over_the_identity_the_map() -> None:
    assert torch.equal(coset_pool(X, D4, D4), coset_max(X, 8))
    assert torch.equal(coset_pool(X, D4, C1), X)
    assert coset_max(X, 1) is X


def test_a_mirror_swaps_the_two_cosets_of_rotations_and_a_rotation_leaves_them() -> None:
    pooled = coset_pool(torch.randn(1, 8, 1, 1), D4, C4)
    for place in range(8):
        mirrors = D4.matrices[place] not in C4.matrices
        wanted = pooled.flip(1) if mirrors else pooled
        assert torch.equal(act_on_cosets(D4, C4, place, pooled), wanted)


def test_pooling_onto_a_subgroup_takes_one_element_of_every_coset() -> None:
    pooled = subgroup_pool(X, D4, C4).unflatten(1, (2, 4))
    fields = X.unflatten(1, (2, 8))
    mirror = 1
    for place, element in enumerate(D4.places_of(C4)):
        pair = torch.maximum(fields[:, :, element], fields[:, :, D4.product[element, mirror]])
        assert torch.equal(pooled[:, :, place], pair)


def test_restriction_only_reorders_and_is_a_function_on_the_subgroup() -> None:
    restricted = restrict(X, D4, D1)
    assert torch.equal(restricted.flatten(2).sort(dim=1).values, X.flatten(2).sort(dim=1).values)
    mirrored = act_on_fields(D4, int(D4.places_of(D1)[1]), X, Fields(2))
    assert torch.equal(restrict(mirrored, D4, D1), act_on_fields(D1, 1, restricted, Fields(8)))


def test_layers_compute_what_the_functions_do() -> None:
    assert torch.equal(CosetPool2d(D4, D1, "mean")(X), coset_pool(X, D4, D1, "mean"))
    assert torch.equal(SubgroupPool2d(D4, D1)(X), subgroup_pool(X, D4, D1))
    assert not CosetPool2d(D4, D1).state_dict()


@pytest.mark.parametrize("layer", [CosetPool2d, SubgroupPool2d])
def test_a_group_that_is_no_subgroup_is_refused(layer: type[CosetPool2d] | type[SubgroupPool2d]) -> None:
    with pytest.raises(ValueError, match=r"^subgroup is 'D1', whose element mirror-x is not in 'C4'"):
        layer(C4, D1)


@pytest.mark.parametrize("layer", [CosetPool2d, SubgroupPool2d])
def test_another_way_of_pooling_is_refused(layer: type[CosetPool2d] | type[SubgroupPool2d]) -> None:
    with pytest.raises(ValueError, match=r"^how is 'median'; pooling takes 'max' or 'mean' of a domain$"):
        layer(D4, C4, "median")  # type: ignore[arg-type]


def test_channels_that_are_no_orbits_are_refused() -> None:
    message = r"^x has 12 channels, which are no whole number of orbits of 8; give regular fields only, over the group"
    x = torch.zeros(1, 12, 2, 2)
    for call in (CosetPool2d(D4, C4), lambda x: coset_max(x, 8), lambda x: restrict(x, D4, C4)):
        with pytest.raises(ValueError, match=message):
            call(x)
