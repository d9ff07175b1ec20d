"""Convolutions with copies of one kernel, combined by maxout or concatenated, and with symmetric kernels."""

from collections.abc import Callable

import torch
from case import IMAGE, REGULAR, THREE, Case
from torch import Tensor, nn

from emboundary.model.conv import Combination, Copies, OrbitMaxoutConv2d
from emboundary.model.group_conv import Fields, turn
from emboundary.model.groups import C1, C2, C4, D1, D2, D4, GROUPS, Group
from emboundary.model.symmetric import LEVEL_GROUPS, SymmetricConv2d

MAPS = Fields(trivial=3)
Build = Callable[[Group], nn.Module]


def _copies(
    copies: Copies, kernel: int = 3, *, combine: Combination = "maxout", stride: int = 1, padding: int | None = None
) -> Build:
    return lambda _: OrbitMaxoutConv2d(1, 3, kernel, copies, combine=combine, stride=stride, padding=padding)


def _symmetric(level: int, kernel: int, *, stride: int = 1, padding: int | None = None) -> Build:
    return lambda _: SymmetricConv2d(3, 2, kernel, level, stride=stride, padding=padding, bias=True)


def _moved_round(group: Group, place: int, y: Tensor) -> Tensor:
    """A turn of an image, on the concatenation of 8 rotated copies of each kernel: two places round by 90 degrees."""
    steps = {0: 0, 6: 2, 3: 4, 5: 6}[group.elements[place]]
    copies = turn(group.elements[place], y).unflatten(1, (-1, 8))
    return torch.roll(copies, steps, dims=2).flatten(1, 2)


def _subgroups(level: int) -> tuple[Group, ...]:
    whole = set(LEVEL_GROUPS[level].elements)
    return tuple(group for group in GROUPS.values() if whole.issuperset(group.elements))


ROTATIONS: list[tuple[Copies, tuple[Group, ...]]] = [
    ("rotations-2", (C1, C2)),
    ("rotations-4", (C1, C2, C4)),
    ("rotations-8", (C1, C2, C4)),
    ("d4", tuple(GROUPS.values())),
]
CLOSED = [
    *(Case(f"maxout over {copies}", _copies(copies), IMAGE, MAPS, groups=groups) for copies, groups in ROTATIONS),
    *(
        Case(
            f"maxout over {copies}, 4x4 stride 2 padding 1",
            _copies(copies, 4, stride=2, padding=1),
            IMAGE,
            MAPS,
            groups=groups,
        )
        for copies, groups in ROTATIONS
        if copies != "rotations-8"
    ),
    *(
        Case(
            f"maxout over {copies}, 3x3 stride 2 on odd sides",
            _copies(copies, stride=2),
            IMAGE,
            MAPS,
            sides=(9, 13),
            groups=groups,
        )
        for copies, groups in ROTATIONS
    ),
    Case("maxout over d4, 2x2", _copies("d4", 2), IMAGE, MAPS),
    Case("maxout over d4, 5x5", _copies("d4", 5), IMAGE, MAPS),
    *(
        Case(f"concatenation of {copies}", _copies(copies, combine="concatenate"), IMAGE, THREE, groups=(group,))
        for copies, group in (("rotations-2", C2), ("rotations-4", C4), ("d4", D4))
    ),
    Case(
        "concatenation of rotations-8",
        _copies("rotations-8", combine="concatenate"),
        IMAGE,
        Fields(trivial=24),
        groups=(C1, C2, C4),
        act_out=_moved_round,
    ),
]
NOT_CLOSED = [
    Case(
        "maxout over flips, a set that is not closed",
        _copies("flips"),
        IMAGE,
        MAPS,
        groups=(C2, D1, D2, D4),
        violation=0.01,
    ),
    Case(
        "maxout over flips 4x4 stride 2",
        _copies("flips", 4, stride=2, padding=1),
        IMAGE,
        MAPS,
        groups=(C2, D1, D2, D4),
        violation=0.01,
    ),
    Case(
        "maxout over rotations-2, by the axes exchanged",
        _copies("rotations-2"),
        IMAGE,
        MAPS,
        groups=(C4, D4),
        violation=0.01,
    ),
    Case(
        "maxout over rotations-4, by mirrors", _copies("rotations-4"), IMAGE, MAPS, groups=(D1, D2, D4), violation=0.01
    ),
    Case(
        "maxout over rotations-8, by mirrors", _copies("rotations-8"), IMAGE, MAPS, groups=(D1, D2, D4), violation=0.01
    ),
    Case(
        "maxout over d4, 3x3 stride 2 on even sides",
        _copies("d4", stride=2),
        IMAGE,
        MAPS,
        groups=(C2, C4, D1, D2, D4),
        violation=0.01,
    ),
]
SYMMETRIC = [
    *(
        Case(
            f"symmetric kernels, level {level}, {kernel}x{kernel}",
            _symmetric(level, kernel),
            MAPS,
            Fields(trivial=2),
            groups=_subgroups(level),
        )
        for level in range(5)
        for kernel in (1, 3, 5)
    ),
    *(
        Case(
            f"symmetric kernels, level {level}, 4x4 stride 2",
            _symmetric(level, 4, stride=2, padding=1),
            MAPS,
            Fields(trivial=2),
            groups=_subgroups(level),
        )
        for level in range(5)
    ),
    *(
        Case(
            f"symmetric kernels, level {level}, 3x3 stride 2 on odd sides",
            _symmetric(level, 3, stride=2),
            MAPS,
            Fields(trivial=2),
            sides=(9, 13),
            groups=_subgroups(level),
        )
        for level in range(5)
    ),
    Case(
        "kernels without symmetry",
        _symmetric(0, 3),
        MAPS,
        Fields(trivial=2),
        groups=(C2, C4, D1, D2, D4),
        violation=0.01,
    ),
    Case(
        "symmetric kernels, level 1, by rotations",
        _symmetric(1, 3),
        MAPS,
        Fields(trivial=2),
        groups=(C2, C4, D2, D4),
        violation=0.01,
    ),
    Case(
        "symmetric kernels, level 2, by 90 degrees",
        _symmetric(2, 3),
        MAPS,
        Fields(trivial=2),
        groups=(C4, D4),
        violation=0.01,
    ),
    Case(
        "symmetric kernels, level 3, 3x3 stride 2 on even sides",
        _symmetric(3, 3, stride=2),
        MAPS,
        Fields(trivial=2),
        groups=(C2, C4, D1, D2, D4),
        violation=0.01,
    ),
    Case(
        "symmetric kernels, level 3, 4x4 stride 2 on odd sides",
        _symmetric(3, 4, stride=2, padding=1),
        MAPS,
        Fields(trivial=2),
        sides=(9, 13),
        groups=(C2, C4, D1, D2, D4),
        violation=0.01,
    ),
    Case(
        "symmetric kernels on orbits",
        lambda g: SymmetricConv2d(2 * g.order, 3 * g.order, 3, 4),
        REGULAR,
        THREE,
        groups=(C2, C4, D1, D2, D4),
        violation=0.01,
    ),
]
CASES = [*CLOSED, *NOT_CLOSED, *SYMMETRIC]
