from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from case import give_statistics
from torch import nn

from emboundary.model.blocks import Unit
from emboundary.model.folding import expand_and_fold
from emboundary.model.group_conv import Fields, GroupBatchNorm2d, GroupConv2d
from emboundary.model.groups import C4, D4
from emboundary.model.inception import Segmenter, SegmenterSpec

MakeNetwork = Callable[[SegmenterSpec], Segmenter]
NARROW = SegmenterSpec(stem=8, a=8, b=8, c=8, blocks=(1, 1, 1), decoder=8, head=16, mix=8)
ORDINARY = (nn.Conv2d, nn.ConvTranspose2d, nn.Identity, nn.MaxPool2d)


@pytest.mark.parametrize(
    "spec",
    [
        NARROW,
        replace(NARROW, symmetry="paper", angles=8),
        *(replace(NARROW, symmetry="d4", maxout=m) for m in ("none", "skip", "beside", "first", "both")),
        replace(NARROW, symmetry="d4", last="max-mean"),
    ],
    ids=lambda s: f"{s.symmetry}-{s.maxout}-{s.last}",
)
def test_the_folded_network_computes_the_same(network: MakeNetwork, spec: SegmenterSpec) -> None:
    net = network(spec)
    x = torch.randn(2, 1, 24, 40)
    with torch.no_grad():
        torch.testing.assert_close(expand_and_fold(net)(x), net(x), rtol=0, atol=1e-5)


def test_only_ordinary_layers_are_left(network: MakeNetwork) -> None:
    plain = expand_and_fold(network(replace(NARROW, symmetry="d4", last="max-mean")))
    leaves = [m for m in plain.modules() if not list(m.children())]
    assert {type(m) for m in leaves} == set(ORDINARY)
    assert not plain.training


def test_the_given_network_stays_as_it_is() -> None:
    net = Segmenter(replace(NARROW, symmetry="d4")).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    expand_and_fold(net)
    assert net.training
    assert net.state_dict().keys() == before.keys()
    assert all(torch.equal(net.state_dict()[name], value) for name, value in before.items())


def test_products_are_rounded_once() -> None:
    unit = Unit(GroupConv2d(C4, Fields(trivial=1), 2, 3), GroupBatchNorm2d(C4, 2)).eval()
    assert isinstance(unit.norm, GroupBatchNorm2d)
    nn.init.constant_(unit.norm.weight, 1 / 3)
    folded = expand_and_fold(unit).conv
    assert isinstance(folded, nn.Conv2d)
    scale, _ = unit.norm.double().scale_and_shift()
    assert isinstance(unit.conv, GroupConv2d)
    exact = unit.conv.double().filters.expand() * scale[:, None, None, None]
    assert torch.equal(folded.weight, exact.float())


@torch.no_grad()
def test_a_bias_is_folded_with_its_layer() -> None:
    unit = Unit(GroupConv2d(C4, Fields(trivial=1), 2, 3, bias=True), GroupBatchNorm2d(C4, 2)).eval()
    give_statistics(unit)
    x = torch.randn(1, 1, 6, 6)
    torch.testing.assert_close(expand_and_fold(unit)(x), unit(x))


def test_a_layer_of_another_kind_is_refused() -> None:
    unit = Unit(nn.Conv2d(1, 8, 3), GroupBatchNorm2d(D4, 1))
    with pytest.raises(TypeError, match=r"^a unit of Conv2d and GroupBatchNorm2d cannot be folded; give a group, ke"):
        expand_and_fold(unit)
