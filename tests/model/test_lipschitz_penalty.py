import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from emboundary.model.conv import OrbitMaxoutConv2d
from emboundary.model.group_conv import Fields, GroupBatchNorm2d, GroupConv2d
from emboundary.model.groups import C4
from emboundary.model.inception import Segmenter, SegmenterSpec
from emboundary.model.lipschitz import lipschitz_bound
from emboundary.model.lipschitz_penalty import LipschitzPenalty

NARROW = SegmenterSpec("d4", stem=8, a=8, b=8, c=8, blocks=(1, 1, 1), decoder=8, head=8, mix=8)


def chain() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(
        GroupConv2d(C4, Fields(trivial=1), 2, 3), GroupBatchNorm2d(C4, 2), nn.ReLU(), nn.Conv2d(8, 3, 3, padding=1)
    )
    norm = net[1]
    assert isinstance(norm, GroupBatchNorm2d)
    assert norm.running_var is not None
    nn.init.uniform_(norm.weight, 0.5, 2)
    norm.running_var.uniform_(0.5, 2)
    return net


def test_norms_are_those_of_the_maps_with_their_batch_norm() -> None:
    net = chain()
    penalty = LipschitzPenalty(net, side=8, iterations=200)
    penalty()
    exact = {stage.name: stage.constant for stage in lipschitz_bound(net, (1, 8, 8)).stages}
    assert penalty.layers == ("0", "3")
    assert penalty.norms() == pytest.approx(exact, rel=1e-3)


def test_vectors_are_kept_so_that_one_iteration_a_step_is_enough() -> None:
    net = chain()
    penalty, patient = LipschitzPenalty(net, side=8), LipschitzPenalty(net, side=8, iterations=200)
    steps = [penalty().detach() for _ in range(200)]
    assert steps[0] < 0.8 * steps[-1]
    torch.testing.assert_close(steps[-1], patient().detach())


def test_only_what_exceeds_the_target_counts() -> None:
    net = chain()
    patient = LipschitzPenalty(net, side=8, iterations=200, target=0)
    total = patient().item()
    assert total == pytest.approx(sum(norm**2 for norm in patient.norms().values()), rel=1e-4)
    assert LipschitzPenalty(net, side=8, iterations=200, target=max(patient.norms().values()) + 0.1)().item() == 0


def test_its_gradient_is_that_of_the_norms_at_its_vectors() -> None:
    net = chain().double()
    penalty = LipschitzPenalty(net, side=6, iterations=3, target=0.5)
    penalty().backward()
    for parameter in (net[0].filters.trivial, net[1].weight, net[3].weight):
        value, gradient = parameter.data.flatten(), parameter.grad.flatten()
        before = float(value[1])
        ends = []
        for moved in (before + 1e-5, before - 1e-5):
            value[1] = moved
            ends.append(sum(max(norm - 0.5, 0) ** 2 for norm in penalty.norms().values()))
        value[1] = before
        assert (ends[0] - ends[1]) / 2e-5 == pytest.approx(float(gradient[1]), rel=1e-6)


def test_training_with_it_shrinks_the_norms() -> None:
    net = chain()
    penalty = LipschitzPenalty(net, side=8)
    for _ in range(20):
        penalty()
    before = max(penalty.norms().values())
    optimiser = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(60):
        optimiser.zero_grad()
        penalty().backward()
        optimiser.step()
    assert max(penalty.norms().values()) < 1.1 < before / 1.5


def test_a_segmenter_s_convolutions_all_count_and_nothing_is_registered_twice() -> None:
    net = Segmenter(NARROW)
    penalty = LipschitzPenalty(net)
    assert not list(penalty.parameters())
    assert not [name for name in penalty.state_dict() if not name.startswith("vector_")]
    assert {"stem.first.conv", "up_c.deconv.conv", "logit.of_max"} <= set(penalty.layers)
    assert net.training


def test_its_state_resumes_it_exactly() -> None:
    net = chain()
    penalty, other = LipschitzPenalty(net, side=8), LipschitzPenalty(net, side=8, seed=1)
    for _ in range(3):
        penalty()
    other.load_state_dict(copy.deepcopy(penalty.state_dict()))
    assert torch.equal(penalty(), other())


def test_copies_of_a_kernel_count_before_their_maximum() -> None:
    torch.manual_seed(0)
    net = OrbitMaxoutConv2d(1, 2, 3, "rotations-4")
    penalty = LipschitzPenalty(net, side=8, iterations=200)
    penalty()
    (exact,) = lipschitz_bound(net, (1, 8, 8)).stages
    assert list(penalty.norms().values()) == pytest.approx([exact.constant], rel=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"side": 0}, r"^side is 0; it must be at least 1$"),
        ({"iterations": 0}, r"^iterations is 0; it must be at least 1$"),
        ({"target": -1.0}, r"^target is -1.0; a spectral norm is never below 0: give 0 or more$"),
    ],
)
def test_bad_arguments_are_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LipschitzPenalty(chain(), **change)


def test_a_network_without_convolutions_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^net is a ReLU without convolutions; there is nothing to penalise$"):
        LipschitzPenalty(nn.ReLU())


def test_a_pooling_that_learns_is_no_convolution() -> None:
    net = Segmenter(replace(NARROW, pooling="learned-lp"))
    penalty = LipschitzPenalty(net, side=32)
    assert set(penalty.layers) == set(LipschitzPenalty(Segmenter(NARROW), side=32).layers)
    assert penalty().item() > 0
