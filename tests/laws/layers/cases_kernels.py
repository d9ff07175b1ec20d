"""Convolutions with copies of one kernel, combined by maxout."""

from collections.abc import Callable

import numpy as np
from case import IMAGE, Case, Function
from numpy.typing import NDArray
from torch import nn

from emboundary.model.conv import KernelOrbitConv2d, d4_elements, flips, rotations
from emboundary.model.group_conv import Fields, coset_max
from emboundary.model.groups import C1, C2, C4, D4, Group


def _maxout(table: NDArray[np.int64]) -> Callable[[Group], nn.Module]:
    def build(_: Group) -> nn.Module:
        conv = KernelOrbitConv2d(1, 3, 3, table)
        return nn.Sequential(conv, Function(lambda x: coset_max(x, conv.copies)))

    return build


MAPS = Fields(trivial=3)
CASES = [
    Case("maxout over 2 rotations", _maxout(rotations(2, 3)), IMAGE, MAPS, groups=(C1, C2)),
    Case("maxout over 4 rotations", _maxout(rotations(4, 3)), IMAGE, MAPS, groups=(C1, C2, C4)),
    Case("maxout over 8 rotations", _maxout(rotations(8, 3)), IMAGE, MAPS, groups=(C1, C2, C4)),
    Case("maxout over the 8 elements", _maxout(d4_elements(3)), IMAGE, MAPS),
    Case(
        "the published flip set, which is not closed",
        _maxout(flips(3)),
        IMAGE,
        MAPS,
        groups=(C2, D4),
        violation=0.01,
    ),
    Case(
        "maxout over 4 rotations, under mirrors",
        _maxout(rotations(4, 3)),
        IMAGE,
        MAPS,
        groups=(D4,),
        violation=0.01,
    ),
]
