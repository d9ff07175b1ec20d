import tomllib
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

from emboundary.model.folding import expand_and_fold
from emboundary.model.footprint import count_parameters, flops_per_pixel
from emboundary.model.group_conv import turn
from emboundary.model.groups import C1, D4
from emboundary.model.inception import STRIDE, Segmenter, SegmenterSpec

CONFIGS = Path(__file__).parents[2] / "training" / "configs"
NARROW = SegmenterSpec(stem=8, a=8, b=8, c=8, blocks=(1, 1, 1), decoder=8, head=8)
VARIANTS = [
    SegmenterSpec("plain"),
    *(SegmenterSpec("paper", angles=angles) for angles in (2, 4, 8)),
    *(SegmenterSpec("d4", maxout=maxout) for maxout in ("none", "skip", "beside", "first", "both")),
]


def narrow(spec: SegmenterSpec) -> SegmenterSpec:
    widths = {f.name: getattr(NARROW, f.name) for f in fields(SegmenterSpec) if f.name not in _KINDS}
    return SegmenterSpec(**{kind: getattr(spec, kind) for kind in _KINDS}, **widths)


_KINDS = ("symmetry", "angles", "maxout")
EVERY_VARIANT = pytest.mark.parametrize(
    "spec", VARIANTS, ids=lambda s: f"{s.symmetry}-{s.angles if s.symmetry == 'paper' else s.maxout}"
)


def violation(net: Segmenter) -> float:
    net = net.double().eval()
    image = torch.randn(2, net.spec.channels, 3 * STRIDE, 5 * STRIDE, dtype=torch.float64)
    with torch.no_grad():
        upright = net(image)
        errors = [(net(turn(e, image)) - turn(e, upright)).abs().max() for e in D4.elements]
    return float(max(errors) / upright.abs().max())


@EVERY_VARIANT
def test_logits_are_of_the_image_s_size(spec: SegmenterSpec) -> None:
    torch.manual_seed(0)
    net = Segmenter(narrow(spec))
    assert net(torch.randn(2, 1, STRIDE, 3 * STRIDE)).shape == (2, 1, STRIDE, 3 * STRIDE)


@EVERY_VARIANT
def test_only_d4_commutes_with_rotations_and_flips(spec: SegmenterSpec) -> None:
    torch.manual_seed(0)
    error = violation(Segmenter(narrow(spec)))
    if spec.symmetry == "d4":
        assert error < 1e-12
    else:
        assert error > 0.01


@EVERY_VARIANT
@pytest.mark.parametrize("context", [1, 2])
def test_context_leaves_the_symmetry_as_it_is(spec: SegmenterSpec, context: int) -> None:
    torch.manual_seed(0)
    error = violation(Segmenter(replace(narrow(spec), context=context)))
    if spec.symmetry == "d4":
        assert error < 1e-12
    else:
        assert error > 0.01


@EVERY_VARIANT
def test_every_section_of_the_context_has_its_own_place(spec: SegmenterSpec) -> None:
    torch.manual_seed(0)
    net = Segmenter(replace(narrow(spec), context=1)).double().eval()
    image = torch.randn(1, 3, 2 * STRIDE, 2 * STRIDE, dtype=torch.float64)
    with torch.no_grad():
        logits = {order: net(image[:, order]) for order in [(0, 1, 2), (2, 1, 0), (1, 0, 2), (0, 1, 1)]}
    assert logits[0, 1, 2].shape == (1, 1, 2 * STRIDE, 2 * STRIDE)
    assert all((logits[order] - logits[0, 1, 2]).abs().max() > 1e-6 for order in list(logits)[1:])


def test_a_context_below_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^context is -1; it must be 0 \(one section\) or a number of neighbours"):
        SegmenterSpec(context=-1)


@EVERY_VARIANT
def test_every_parameter_learns(spec: SegmenterSpec) -> None:
    torch.manual_seed(0)
    net = Segmenter(narrow(spec))
    net(torch.randn(2, 1, 4 * STRIDE, 4 * STRIDE)).square().sum().backward()
    unused = [name for name, p in net.named_parameters() if p.numel() and (p.grad is None or not p.grad.any())]
    assert not unused


def test_network_commutes_with_shifts_by_the_stride_only() -> None:
    torch.manual_seed(0)
    net = Segmenter(narrow(VARIANTS[0])).double().eval()
    wide = torch.randn(1, 1, 20 * STRIDE, 20 * STRIDE, dtype=torch.float64)
    inner = slice(8 * STRIDE, 12 * STRIDE)
    with torch.no_grad():
        maps = {s: net(wide.roll((s, s), (2, 3))).roll((-s, -s), (2, 3))[..., inner, inner] for s in (0, 1, STRIDE)}
    torch.testing.assert_close(maps[STRIDE], maps[0])
    assert not torch.allclose(maps[1], maps[0])


def shipped(name: str) -> SegmenterSpec:
    table = tomllib.loads((CONFIGS / f"{name}.toml").read_text(encoding="utf-8"))["model"]
    return SegmenterSpec(**table | {"blocks": tuple(table["blocks"])})


@pytest.mark.parametrize(("name", "tolerance"), [("d4", 0.05), ("paper", 0.10)])
def test_shipped_networks_cost_what_plain_costs(name: str, tolerance: float) -> None:
    cost = {n: flops_per_pixel(expand_and_fold(Segmenter(shipped(n))), STRIDE) for n in ("plain", name)}
    assert abs(cost[name] / cost["plain"] - 1) <= tolerance


def test_d4_has_about_an_eighth_of_the_parameters() -> None:
    plain, d4 = (count_parameters(Segmenter(SegmenterSpec(symmetry))) for symmetry in ("plain", "d4"))
    assert 7 <= plain / d4 <= 8.5


def test_a_spec_knows_its_group() -> None:
    assert [SegmenterSpec(s).group for s in ("plain", "paper", "d4")] == [C1, C1, D4]
    assert NARROW.with_symmetry("d4") == SegmenterSpec("d4", stem=8, a=8, b=8, c=8, blocks=(1, 1, 1), decoder=8, head=8)


@pytest.mark.parametrize("field", ["stem", "a", "b", "c", "decoder", "head"])
@pytest.mark.parametrize("width", [0, -8, 12])
def test_a_width_that_d4_cannot_share_out_is_refused(field: str, width: int) -> None:
    with pytest.raises(ValueError, match=rf"^{field} is {width}; a width must be a positive multiple of 8"):
        SegmenterSpec(**{field: width})


def test_a_stage_without_blocks_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^blocks is \(1, 0, 1\); each of Inception A, B and C needs at least one"):
        SegmenterSpec(blocks=(1, 0, 1))
