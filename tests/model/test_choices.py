"""Every choice of stem, trunk and pooling: its law, its export, its halo, its learning."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import nn

from emboundary.model.export import build_onnx
from emboundary.model.folding import expand_and_fold
from emboundary.model.footprint import count_parameters, flops_per_pixel, receptive_field
from emboundary.model.group_conv import turn
from emboundary.model.groups import D4
from emboundary.model.half import to_half
from emboundary.model.inception import STRIDE, Segmenter, SegmenterSpec
from emboundary.model.parity import measure_parity
from emboundary.model.pooling_lp import LearnedLpPool2d
from emboundary.model.quantise import quantise

NARROW = SegmenterSpec("custom", stem=16, a=8, b=8, c=8, blocks=(1, 1, 1), decoder=8, head=8, mix=8)
CHOICES = {
    **{name: replace(NARROW, trunk=name) for name in ("C1", "C2", "C4", "D1", "D2", "D4")},
    **{f"level {level}": replace(NARROW, trunk="symmetric", level=level) for level in range(5)},
    "rotation maxout, 2 angles": replace(NARROW, trunk="D2", stem_kind="rotation-maxout", angles=2),
    "rotation maxout, 4 angles": replace(NARROW, trunk="C4", stem_kind="rotation-maxout"),
    "rotation maxout, 8 angles": replace(NARROW, trunk="D4", stem_kind="rotation-maxout", angles=8),
    "flip maxout": replace(NARROW, trunk="D4", stem_kind="flip-maxout"),
    "rotation, then flip maxout": replace(NARROW, trunk="D4", stem_kind="rotation-flip"),
    "d4 maxout": replace(NARROW, trunk="D4", stem_kind="d4-maxout"),
    "d4 maxout, level 2": replace(NARROW, trunk="symmetric", level=2, stem_kind="d4-maxout"),
    "copies": replace(NARROW, trunk="C4", stem_kind="copies"),
    "symmetric stem": replace(NARROW, trunk="D4", stem_kind="symmetric", level=1),
    "ordinary stem": replace(NARROW, trunk="D4", stem_kind="ordinary"),
    "scattering": replace(NARROW, trunk="D4", stem_kind="scattering", scales=1),
    "scattering, ordinary trunk": replace(NARROW, stem_kind="scattering", scales=1),
    **{
        f"{kind} pooling": replace(NARROW, trunk="D4", pooling=kind)
        for kind in (
            *("average", "lp", "learned-lp", "gaussian-lp", "stochastic", "entropy"),
            *("heterogeneous", "side-by-side"),
        )
    },
}
LAWS = {
    **{name: name for name in ("C1", "C2", "C4", "D1", "D2", "D4")},
    **{"level 0": "C1", "level 1": "D1", "level 2": "D2", "level 3": "D4", "level 4": "D4"},
    **{"rotation maxout, 2 angles": "C2", "rotation maxout, 4 angles": "C4", "rotation maxout, 8 angles": "C4"},
    **{"flip maxout": "C1", "rotation, then flip maxout": "C1", "d4 maxout": "D4", "d4 maxout, level 2": "D2"},
    **{"copies": "C1", "symmetric stem": "D1", "ordinary stem": "C1", "scattering": "D4"},
    "scattering, ordinary trunk": "C1",
}
# Wide enough that no last feature is dead.
WIDER = replace(NARROW, a=16, b=16, c=16, decoder=16, head=32, mix=32)
# Several choices in each, so that every one of them is exported.
EXPORTED = {
    "C2, average": replace(WIDER, trunk="C2", pooling="average"),
    "C4, rotation maxout, L3": replace(WIDER, trunk="C4", stem_kind="rotation-maxout", pooling="lp", pooling_p=3.0),
    "D1, copies, learned Lp": replace(WIDER, trunk="D1", stem_kind="copies", pooling="learned-lp"),
    "D2, d4 maxout, Gaussian": replace(WIDER, trunk="D2", stem_kind="d4-maxout", pooling="gaussian-lp"),
    "D4, flips, stochastic": replace(WIDER, trunk="D4", stem_kind="flip-maxout", pooling="stochastic"),
    "level 1, entropy": replace(WIDER, trunk="symmetric", level=1, pooling="entropy"),
    "level 4, heterogeneous": replace(WIDER, trunk="symmetric", level=4, pooling="heterogeneous"),
    "D4, both": replace(WIDER, trunk="D4", maxout="both", pooling="side-by-side"),
    "D4, scattering": replace(WIDER, trunk="D4", stem_kind="scattering", scales=2, maxout="beside"),
}


@cache
def calibrated(spec: SegmenterSpec) -> Segmenter:
    """A seeded network whose batch norms have the statistics of noise."""
    torch.manual_seed(0)
    net = Segmenter(spec).train()
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = None
            nn.init.uniform_(norm.weight, 0.7, 1.3)
            nn.init.uniform_(norm.bias, -0.2, 0.2)
    with torch.no_grad():
        net(torch.randn(4, spec.channels, 8 * STRIDE, 8 * STRIDE))
        for norm in net.modules():
            if isinstance(norm, nn.BatchNorm2d):
                assert norm.running_var is not None
                norm.running_var.clamp_(min=1e-3)  # a dead field would be amplified until its rounding shows
    return net.eval()


def each(specs: dict[str, SegmenterSpec]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("name", specs)


@each(CHOICES)
def test_a_network_commutes_with_its_group_and_with_nothing_else(name: str) -> None:
    spec = CHOICES[name]
    assert spec.law.name == LAWS.get(name, "D4")
    net = calibrated(spec)
    double = Segmenter(spec).double().eval()
    double.load_state_dict(net.state_dict())
    image = torch.randn(1, 1, 2 * STRIDE, 3 * STRIDE, dtype=torch.float64)
    with torch.no_grad():
        upright = double(image)
        for element in D4.elements:
            error = (double(turn(element, image)) - turn(element, upright)).abs().max() / upright.abs().max()
            assert error < 1e-11 if element in spec.law.elements else error > 0.01, element


@each(EXPORTED)
def test_a_choice_exports_within_1e_5_and_sees_what_is_computed(name: str) -> None:
    spec = EXPORTED[name]
    net = calibrated(spec)
    model = build_onnx(net)
    parity = measure_parity(net, model.SerializeToString())
    assert parity.torch_difference <= 1e-5
    assert parity.law_error <= 1e-5
    assert (parity.symmetry_error <= 1e-5) == (spec.law == D4)
    plain = expand_and_fold(net)
    assert flops_per_pixel(plain, STRIDE) > 1000
    assert 0 < count_parameters(net) == sum(p.numel() for p in net.parameters())
    field = receptive_field(model)
    assert field.stride == STRIDE
    side = 2 * (field.halo + STRIDE)
    corner = field.halo // STRIDE * STRIDE
    torch.manual_seed(1)
    images = torch.randn(2, 1, side, side)
    for y, x in ((0, 7), (3, 4), (7, 0)):
        rows, columns = field.phases[0][y], field.phases[1][x]
        own = (slice(corner + rows.low, corner + rows.high + 1), slice(corner + columns.low, corner + columns.high + 1))
        images[1, 0, own[0], own[1]] = images[0, 0, own[0], own[1]]
        with torch.no_grad():
            same = plain(images)[:, 0, corner + y, corner + x]
            images[1, 0, own[0], own[1]] += torch.randn_like(images[1, 0, own[0], own[1]])
            other = plain(images)[:, 0, corner + y, corner + x]
        assert (same[0] - same[1]).abs() < 1e-5
        assert (other[0] - other[1]).abs() > 1e-4


@pytest.mark.parametrize("pooling", ["learned-lp", "stochastic", "gaussian-lp", "entropy"])
def test_a_network_learns_through_a_pooling_that_computes(pooling: str) -> None:
    torch.manual_seed(0)
    net = Segmenter(replace(NARROW, pooling=pooling))
    before = [m.exponents.detach().clone() for m in net.modules() if isinstance(m, LearnedLpPool2d)]
    image = torch.randn(2, 1, 4 * STRIDE, 4 * STRIDE)
    target = (nn.functional.avg_pool2d(image, 5, 1, 2) > 0).float()
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    losses = []
    for _ in range(12):
        loss = nn.functional.binary_cross_entropy_with_logits(net(image), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    after = [m.exponents for m in net.modules() if isinstance(m, LearnedLpPool2d)]
    assert len(after) == (3 if pooling == "learned-lp" else 0)
    assert all((b - a).abs().max() > 1e-3 for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("fewer_bits", [to_half, lambda model: quantise(model, [])], ids=["float16", "int8"])
def test_a_pooling_that_computes_is_refused_in_fewer_bits(fewer_bits: Callable[[object], object]) -> None:
    model = build_onnx(calibrated(EXPORTED["level 1, entropy"]))
    with pytest.raises(ValueError, match=r"^the graph holds \['Abs', 'Div', 'Greater', 'Mul', 'Where'\], of a scatt"):
        fewer_bits(model)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"symmetry": "d4", "trunk": "C4"}, "trunk is 'C4'; symmetry 'd4' settles it already: leave it out, or give"),
        ({"symmetry": "paper", "stem_kind": "copies"}, "stem_kind is 'copies'; symmetry 'paper' settles it already"),
        ({"trunk": "C3"}, "trunk is 'C3'; it must be one of C1, C2, C4, D1, D2, D4, symmetric"),
        ({"stem_kind": "wavy"}, "stem_kind is 'wavy'; it must be one of ordinary, group, symmetric, rotation-maxout"),
        ({"stem_kind": "group"}, "stem_kind is 'group'; the trunk 'C1' has no group to lift to: give trunk C2, C4"),
        ({"trunk": "symmetric", "level": 5}, "level is 5; symmetric kernels have levels 0 .none. to 4"),
        ({"trunk": "C4", "level": 2}, "level is 2; it is that of symmetric kernels: give trunk or stem_kind 'symm"),
        ({"stem_kind": "scattering", "scales": 4}, "scales is 4; a scattering stem has 1 to 3 of them"),
        ({"stem_kind": "scattering", "angles": 3}, "angles is 3; a scattering stem has an even number of orientations"),
        (
            {"stem_kind": "rotation-maxout", "angles": 3},
            "angles is 3; the 3x3 kernels of stem_kind 'rotation-maxout' have 2, 4 or 8 rotations",
        ),
        ({"stem_kind": "scattering", "maxout": "first"}, "maxout is 'first'; the first layer of a scattering stem has"),
        ({"pooling_p": 2.0}, "pooling_p is 2.0; pooling 'max' has no exponent: leave it out, or give one of lp, gauss"),
        ({"pooling": "lp", "pooling_p": 0.5}, "pooling is 'lp': p is 0.5; it must be a finite number of at least 1"),
        ({"pooling": "median"}, "pooling is 'median': kind is 'median'; a pooling is one of max, average"),
    ],
)
def test_choices_that_do_not_go_together_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        replace(NARROW, **changes)
