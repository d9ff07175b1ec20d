"""The modules that the segmenter is made of."""

from collections.abc import Callable

from case import IMAGE, MIXED, REGULAR, Case
from torch import Tensor, nn

from emboundary.model.blocks import Inception, Layers, Reduction, Upsample
from emboundary.model.group_conv import Fields
from emboundary.model.groups import C2, C4, D2, D4, GROUPS, Group
from emboundary.model.pooling import PoolSpec
from emboundary.model.spec import Maxout, SegmenterSpec
from emboundary.model.stem import Stem
from emboundary.model.symmetric import LEVEL_GROUPS
from emboundary.model.symmetric_deconv import SymmetricDeconv2d


class _StemOutput(nn.Module):
    """One of a stem's two maps: 0 for the trunk, 1 for the decoder."""

    def __init__(self, maxout: Maxout, output: int) -> None:
        super().__init__()
        self.stem, self.output = Stem(SegmenterSpec("d4", maxout=maxout)), output

    def forward(self, x: Tensor) -> Tensor:
        chosen: Tensor = self.stem(x)[self.output]
        return chosen


def _stem(maxout: Maxout, output: int) -> Callable[[Group], nn.Module]:
    return lambda _: _StemOutput(maxout, output).eval()


def _subgroups(level: int) -> tuple[Group, ...]:
    whole = set(LEVEL_GROUPS[level].elements)
    return tuple(group for group in GROUPS.values() if whole.issuperset(group.elements))


MAPS, THREE = Fields(trivial=2), Fields(trivial=3)
CASES = [
    *(
        Case(
            f"deconvolution x{stride}, kernels of level {level}",
            lambda _, stride=stride, level=level: SymmetricDeconv2d(2, 3, stride, level),
            MAPS,
            THREE,
            sides=(4, 6),
            groups=_subgroups(level),
        )
        for stride in (2, 4)
        for level in range(5)
    ),
    Case(
        "deconvolution, kernels of level 1, under rotations and the other mirror",
        lambda _: SymmetricDeconv2d(2, 3, 2, 1),
        MAPS,
        THREE,
        sides=(4, 6),
        groups=(C2, C4, D2, D4),
        violation=0.01,
    ),
    Case(
        "Reduction by pooling side by side",
        lambda g: Reduction(Layers(g, pooling=PoolSpec("side-by-side")), REGULAR, 2 * g.order),
        REGULAR,
        Fields(regular=6),
    ),
    Case("Inception", lambda g: Inception(Layers(g), MIXED, 2 * g.order), MIXED, Fields(regular=8)),
    Case(
        "Inception, shallow", lambda g: Inception(Layers(g), MIXED, 2 * g.order, deep=False), MIXED, Fields(regular=6)
    ),
    Case("Reduction on even sides", lambda g: Reduction(Layers(g), REGULAR, 2 * g.order), REGULAR, Fields(regular=4)),
    Case("Upsample x4", lambda g: Upsample(Layers(g), MIXED, 2 * g.order, 4), MIXED, REGULAR),
    Case("Stem none, trunk", _stem("none", 0), IMAGE, REGULAR, groups=(D4,)),
    Case("Stem first, trunk", _stem("first", 0), IMAGE, REGULAR, groups=(D4,)),
    Case("Stem both, trunk", _stem("both", 0), IMAGE, Fields(trivial=2), groups=(D4,)),
    Case("Stem skip, to the decoder", _stem("skip", 1), IMAGE, Fields(trivial=2), groups=(D4,)),
    Case("Stem beside, to the decoder", _stem("beside", 1), IMAGE, Fields(2, 2), groups=(D4,)),
]
