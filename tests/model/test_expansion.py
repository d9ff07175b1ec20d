"""Filter banks by lookup, and when they are kept."""

import copy
import io
import pickle
from collections.abc import Callable

import pytest
import torch
from case import IMAGE, MIXED
from torch import Tensor, nn

from emboundary.model.expansion import permuted_copies
from emboundary.model.group_conv import CosetMeanConv2d, GroupConv2d, GroupDeconv2d
from emboundary.model.groups import D4

TABLE = torch.stack([torch.randperm(9) for _ in range(4)])


def test_copies_are_looked_up() -> None:
    weight = torch.randn(3, 2, 9)
    copies = permuted_copies(weight, TABLE)
    assert copies.shape == (3, 4, 2, 9)
    for place, row in enumerate(TABLE):
        assert torch.equal(copies[:, place], weight[:, :, row])


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # inside torch
def test_gradient_of_a_lookup_is_the_sum_over_copies() -> None:
    weight = torch.randn(3, 2, 9, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda w: permuted_copies(w, TABLE), (weight,), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(lambda w: permuted_copies(w, TABLE).square(), (weight,))


def test_lookups_can_be_transformed() -> None:
    weights, one = torch.randn(5, 3, 2, 9), torch.randn(3, 4, 2, 9)
    together = torch.func.vmap(lambda w: permuted_copies(w, TABLE))(weights)
    assert torch.equal(together, torch.stack([permuted_copies(w, TABLE) for w in weights]))
    slopes = torch.func.vmap(torch.func.grad(lambda w: (permuted_copies(w, TABLE) * one).sum()))(weights)
    assert torch.equal(slopes[0], slopes[4])
    wanted = torch.zeros(3, 2, 9)
    for place, row in enumerate(TABLE):
        wanted[:, :, row] += one[:, place]
    torch.testing.assert_close(slopes[0], wanted)


LAYERS = {
    "convolution": lambda: GroupConv2d(D4, MIXED, 2, 3),
    "deconvolution": lambda: GroupDeconv2d(D4, MIXED, 2, 2),
    "means over the group": lambda: CosetMeanConv2d(D4, 2, 3),
}


@pytest.fixture(params=LAYERS.values(), ids=LAYERS)
def layer(request: pytest.FixtureRequest) -> nn.Module:
    built: nn.Module = request.param().eval()
    return built


class _Count:
    """How often a layer makes its filter bank."""

    def __init__(self, layer: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
        self.times = 0
        owner = getattr(layer, "filters", layer)
        expand: Callable[[], Tensor] = owner.expand

        def counted() -> Tensor:
            self.times += 1
            return expand()

        monkeypatch.setattr(owner, "expand", counted)


def _input(layer: nn.Module) -> Tensor:
    return torch.randn(2, 16 if isinstance(layer, CosetMeanConv2d) else 19, 6, 6)


def test_the_bank_is_made_once_for_inference(layer: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    x, count = _input(layer), _Count(layer, monkeypatch)
    with torch.no_grad():
        first = layer(x)
        assert torch.equal(layer(x), first)
    with torch.inference_mode():
        assert torch.equal(layer(x), first)
    assert count.times == 1


def test_the_bank_is_made_anew_for_training_and_for_gradients(
    layer: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, count = _input(layer), _Count(layer, monkeypatch)
    for _ in range(2):
        layer(x).sum().backward()
    with torch.no_grad():
        layer.train()(x)
    assert count.times == 3
    assert all(p.grad is not None and p.grad.any() for p in layer.parameters() if p.numel())


def test_frozen_layers_keep_theirs_while_gradients_pass_through(
    layer: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer.requires_grad_(False)
    with torch.inference_mode():
        layer(_input(layer))  # kept here, used by autograd below
    count = _Count(layer, monkeypatch)
    x = _input(layer).requires_grad_()
    layer(x).square().sum().backward()
    assert x.grad is not None
    assert x.grad.any()
    assert count.times == 0


def _in_place(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        parameter.mul_(-3)


def _behind_autograd(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        parameter.data.mul_(-3)


def _new_storage(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        parameter.data = parameter.data * -3


def _loaded(layer: nn.Module) -> None:
    layer.load_state_dict({name: value * -3 for name, value in layer.state_dict().items()})


def _one_step(layer: nn.Module) -> None:
    before = [p.clone() for p in layer.parameters()]
    for parameter in layer.parameters():
        parameter.grad = 4 * parameter.detach()
    torch.optim.SGD(layer.parameters(), lr=1.0).step()
    assert all(torch.allclose(p, -3 * old) for p, old in zip(layer.parameters(), before, strict=True))


CHANGES = [_in_place, _behind_autograd, _new_storage, _loaded, _one_step]


@pytest.mark.parametrize("change", CHANGES, ids=[change.__name__.strip("_") for change in CHANGES])
@torch.no_grad()
def test_changed_weights_are_seen(layer: nn.Module, change: Callable[[nn.Module], None]) -> None:
    x = _input(layer)
    before = layer(x)
    change(layer)
    torch.testing.assert_close(layer(x), -3 * before)


@torch.no_grad()
def test_another_precision_is_seen(layer: nn.Module) -> None:
    x = _input(layer)
    before = layer(x)
    torch.testing.assert_close(layer.double()(x.double()).float(), before)
    torch.testing.assert_close(layer.float()(x), before)


@torch.no_grad()
def test_a_kept_bank_is_no_part_of_copies_and_files(layer: nn.Module) -> None:
    names, size = set(layer.state_dict()), len(pickle.dumps(layer))
    layer(_input(layer))
    assert set(layer.state_dict()) == names
    assert len(pickle.dumps(layer)) == size
    twin = copy.deepcopy(layer)
    _in_place(twin)
    x = _input(layer)
    torch.testing.assert_close(twin(x), -3 * layer(x))
    file = io.BytesIO()
    torch.save(layer, file)
    torch.testing.assert_close(torch.load(io.BytesIO(file.getvalue()), weights_only=False)(x), layer(x))


@torch.no_grad()
def test_exported_programs_hold_the_parameters_not_the_bank(layer: nn.Module) -> None:
    x = _input(layer)
    wanted = layer(x)
    program = torch.export.export(layer, (x,))
    torch.testing.assert_close(program.module()(x), wanted)
    assert {name for name, _ in program.named_parameters()} == {name for name, _ in layer.named_parameters()}
    held = [*program.constants.values(), *program.state_dict.values()]
    assert not any(value.is_floating_point() for value in held if not isinstance(value, nn.Parameter))


@torch.no_grad()
def test_parameters_given_from_outside_are_used() -> None:
    layer = GroupConv2d(D4, IMAGE, 2, 3).eval()
    x = torch.randn(1, 1, 6, 6)
    before = layer(x)
    others = {name: -3 * value for name, value in layer.state_dict().items()}
    torch.testing.assert_close(torch.func.functional_call(layer, others, (x,)), -3 * before)
    torch.testing.assert_close(layer(x), before)
