"""Pooling over windows, whole maps and channels."""

from collections.abc import Callable
from dataclasses import replace

from case import MIXED, REGULAR, Case, Function
from torch import nn

from emboundary.model.group_conv import Fields, coset_max
from emboundary.model.groups import C2, C4, D1, D2, D4, Group
from emboundary.model.pooling import GlobalAverage, GlobalMax, MaxoutChannels, PoolSpec, make_pool

Build = Callable[[Group], nn.Module]
MOVING = (C2, C4, D1, D2, D4)
WIDE = (C4, D4)  # they have all elements of the other groups
TWO = PoolSpec("side-by-side", regimes=("lp", "average"))
KINDS = {
    "max": PoolSpec("max"),
    "average": PoolSpec("average"),
    "heterogeneous": PoolSpec("heterogeneous"),
    "heterogeneous of learned-lp and entropy": PoolSpec("heterogeneous", regimes=("learned-lp", "entropy")),
    "side-by-side": TWO,
    "lp": PoolSpec("lp", p=2.5),
    "learned-lp": PoolSpec("learned-lp", p=3.4),
    "stochastic": PoolSpec("stochastic"),
    "entropy": PoolSpec("entropy"),
}
# On two regular and three trivial fields.
POOLED = {"side-by-side": Fields(4, 6)}


def _pool(spec: PoolSpec, fields: Fields) -> Build:
    return lambda group: make_pool(spec, fields, group).eval()


def _cases(name: str, spec: PoolSpec) -> list[Case]:
    """One kind with windows of an even and an odd side, with strides that divide and one that does not."""
    outputs = POOLED.get(name, MIXED)
    windows = {
        "2x2 stride 2": (spec, (8, 12)),
        "3x3 stride 1 padding 1": (replace(spec, kernel=3, stride=1, padding=1), (5, 8)),
        "3x3 stride 2 on odd sides": (replace(spec, kernel=3), (9, 7)),
        "4x4 stride 2 padding 1": (replace(spec, kernel=4, padding=1), (8, 6)),
    }
    lawful = [
        Case(f"{name} pooling, {what}", _pool(spec, MIXED), MIXED, outputs, sides=sides, groups=WIDE)
        for what, (spec, sides) in windows.items()
    ]
    broken = Case(
        f"{name} pooling, 2x2 stride 2 on odd sides",
        _pool(spec, MIXED),
        MIXED,
        outputs,
        sides=(9, 7),
        groups=WIDE,
        violation=0.01,
    )
    return [*lawful, broken]


def _invariant_logits(pool: nn.Module) -> Build:
    return lambda group: nn.Sequential(Function(lambda x: coset_max(x, group.order)), pool, nn.Linear(2, 3))


GAUSSIAN = PoolSpec("gaussian-lp", kernel=4, padding=1)
CASES = [
    *(case for name, spec in KINDS.items() for case in _cases(name, spec)),
    *(Case(f"lp pooling, p = {p}", _pool(PoolSpec("lp", p=p), MIXED), MIXED, MIXED, groups=WIDE) for p in (1, 4, 64)),
    Case("gaussian-lp pooling, 4x4 stride 2 padding 1", _pool(GAUSSIAN, MIXED), MIXED, MIXED),
    Case("gaussian-lp pooling, 3x3 stride 2", _pool(replace(GAUSSIAN, kernel=3), MIXED), MIXED, MIXED, sides=(9, 13)),
    Case(
        "gaussian-lp pooling, 5x5 stride 1",
        _pool(PoolSpec("gaussian-lp", kernel=5, stride=1, padding=2, sigma=2, p=3), MIXED),
        MIXED,
        MIXED,
    ),
    Case(
        "gaussian-lp pooling, 4x4 stride 2 on odd sides",
        _pool(GAUSSIAN, MIXED),
        MIXED,
        MIXED,
        sides=(9, 13),
        groups=MOVING,
        violation=0.01,
    ),
    Case("maxout over channels", lambda _: MaxoutChannels(2), Fields(regular=4), REGULAR),
    Case("maxout over trivial channels", lambda _: MaxoutChannels(3), Fields(trivial=6), Fields(trivial=2)),
    Case(
        "maxout over channels that divides orbits",
        lambda _: MaxoutChannels(2),
        Fields(regular=1),
        Fields(trivial=4),
        groups=(D4,),
        violation=0.01,
    ),
    Case("global average", lambda _: GlobalAverage(), MIXED, MIXED, vector=True),
    Case("global average, odd sides", lambda _: GlobalAverage(), MIXED, MIXED, sides=(5, 7), vector=True),
    Case("global maximum", lambda _: GlobalMax(), MIXED, MIXED, vector=True),
    Case("global maximum, odd sides", lambda _: GlobalMax(), MIXED, MIXED, sides=(5, 7), vector=True),
    Case("logits of global averages", _invariant_logits(GlobalAverage()), REGULAR, Fields(trivial=3), vector=True),
    Case("logits of global maxima", _invariant_logits(GlobalMax()), REGULAR, Fields(trivial=3), vector=True),
    Case(
        "logits of global averages of orbits",
        lambda group: nn.Sequential(GlobalAverage(), nn.Linear(2 * group.order, 3)),
        REGULAR,
        Fields(trivial=3),
        groups=MOVING,
        violation=0.01,
        vector=True,
    ),
]
