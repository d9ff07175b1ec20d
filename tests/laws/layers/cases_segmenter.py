"""The modules that the segmenter is made of."""

from collections.abc import Callable

from case import IMAGE, MIXED, REGULAR, Case
from torch import Tensor, nn

from emboundary.model.blocks import Inception, Layers, Reduction, Upsample
from emboundary.model.group_conv import Fields
from emboundary.model.groups import D4, Group
from emboundary.model.spec import Maxout, SegmenterSpec
from emboundary.model.stem import Stem


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


CASES = [
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
