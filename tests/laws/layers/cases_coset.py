"""Pooling over cosets, which all of G permutes, and onto subgroups, which are equivariant to the subgroup alone."""

from case import REGULAR, Case, Function

from emboundary.model.coset import How, act_on_cosets, coset_pool, restrict, subgroup_pool
from emboundary.model.equivariance import Action
from emboundary.model.group_conv import CosetPool2d, Fields, SubgroupPool2d, act_on_fields
from emboundary.model.groups import C1, C2, C4, D1, D2, D4, Group

# normal: D4 over C4, D2, C2; D2 over D1, C2; C4 over C2; not normal: D4 over D1
PAIRS = [(D4, C4), (D4, D2), (D4, C2), (D4, D1), (D4, D4), (D4, C1), (D2, D1), (D2, C2), (C4, C2)]


def _on_cosets(subgroup: Group) -> Action:
    return lambda group, place, y: act_on_cosets(group, subgroup, place, y)


def _as_part_of(group: Group) -> Action:
    """A subgroup's action on regular fields over the whole group."""
    return lambda subgroup, place, x: act_on_fields(group, int(group.places_of(subgroup)[place]), x, REGULAR)


def _over_cosets(group: Group, subgroup: Group, how: How) -> Case:
    return Case(
        f"{how} over the cosets of {subgroup.name} in {group.name}",
        lambda _: CosetPool2d(group, subgroup, how),
        REGULAR,
        Fields(trivial=2 * group.order // subgroup.order),
        groups=(group,),
        act_out=_on_cosets(subgroup),
    )


def _onto(group: Group, subgroup: Group, how: How) -> Case:
    return Case(
        f"{how} of {group.name} onto {subgroup.name}",
        lambda _: SubgroupPool2d(group, subgroup, how),
        Fields(regular=2 * group.order // subgroup.order),
        REGULAR,
        groups=(subgroup,),
        act_in=_as_part_of(group),
    )


def _restricted(group: Group, subgroup: Group) -> Case:
    fields = Fields(regular=2 * group.order // subgroup.order)
    return Case(
        f"fields over {group.name} as fields over {subgroup.name}",
        lambda _: Function(lambda x: restrict(x, group, subgroup)),
        fields,
        fields,
        groups=(subgroup,),
        act_in=_as_part_of(group),
    )


CASES = [
    *(_over_cosets(*pair, "max") for pair in PAIRS),
    *(_over_cosets(*pair, "mean") for pair in PAIRS),
    *(_onto(*pair, "max") for pair in PAIRS),
    *(_onto(*pair, "mean") for pair in PAIRS),
    *(_restricted(*pair) for pair in PAIRS),
    Case(
        "maximum over the cosets of C4 in D4, taken for invariant maps",
        lambda g: Function(lambda x: coset_pool(x, g, C4)),
        REGULAR,
        Fields(trivial=4),
        groups=(D4,),
        violation=0.01,
    ),
    Case(
        "fields over D4 taken for fields over C4 as they lie",
        lambda _: Function(lambda x: x),
        Fields(regular=4),
        Fields(regular=4),
        groups=(C4,),
        act_in=_as_part_of(D4),
        violation=0.01,
    ),
    Case(
        "maximum of D4 onto C4, under mirrors that leave its channels in place",
        lambda g: Function(lambda x: subgroup_pool(x, g, C4)),
        REGULAR,
        Fields(trivial=8),
        groups=(D4,),
        violation=0.01,
    ),
]
