"""Pooling against the formulas written out, at the ends of the range of numbers, and what is refused."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from emboundary.model.group_conv import Fields
from emboundary.model.groups import C1, C4, D4
from emboundary.model.pooling import (
    GlobalAverage,
    GlobalMax,
    Kind,
    MaxoutChannels,
    PoolSpec,
    Regime,
    RegimePool,
    make_pool,
)
from emboundary.model.pooling_lp import LearnedLpPool2d, LpPool2d
from emboundary.model.pooling_responses import EntropyPool2d, StochasticPool2d

Values = NDArray[np.float64]
MIXED = Fields(regular=2, trivial=3)


def _windows(x: Values, spec: PoolSpec) -> Values:
    """(..., H, W) -> (..., H', W', k, k), zeros around."""
    pad = [(0, 0)] * (x.ndim - 2) + [(spec.padding, spec.padding)] * 2
    whole = np.lib.stride_tricks.sliding_window_view(np.pad(x, pad), (spec.kernel, spec.kernel), axis=(-2, -1))
    return np.asarray(whole[..., :: spec.stride, :: spec.stride, :, :])


def _gaussian(spec: PoolSpec) -> Values:
    offset = np.arange(spec.kernel) - (spec.kernel - 1) / 2
    weights = np.exp(-(offset[:, None] ** 2 + offset**2) / (2 * spec.envelope**2))
    return np.asarray(weights / weights.sum())


def _norm(windows: Values, weights: Values | float, p: float) -> Values:
    """(sum w |x|^p)^(1/p) by logarithms, since |x|^64 is out of range."""
    with np.errstate(divide="ignore"):
        terms = np.log(weights) + p * np.log(np.abs(windows))
    return np.asarray(np.exp(np.logaddexp.reduce(terms.reshape(*terms.shape[:-2], -1), axis=-1) / p))


FORMULAS: dict[Regime, Callable[[Values, PoolSpec], Values]] = {
    "max": lambda w, _: w.max(axis=(-2, -1)),
    "average": lambda w, _: w.mean(axis=(-2, -1)),
    "lp": lambda w, spec: _norm(w, 1 / spec.kernel**2, spec.p),
    "learned-lp": lambda w, spec: _norm(w, 1 / spec.kernel**2, spec.p),
    "gaussian-lp": lambda w, spec: _norm(w, _gaussian(spec), spec.p),
    "stochastic": lambda w, _: (np.abs(w) * w).sum(axis=(-2, -1)) / np.abs(w).sum(axis=(-2, -1)),
    "entropy": lambda w, _: np.abs(w).max(axis=(-2, -1)) ** 2 / np.abs(w).mean(axis=(-2, -1)),
}
OF_SIZE: list[Regime] = [kind for kind in FORMULAS if kind not in ("max", "average")]
WINDOWS = [PoolSpec(kernel=3, stride=2), PoolSpec(kernel=4, stride=2), PoolSpec(kernel=5, stride=1)]


def _pool(spec: PoolSpec, channels: int = 3) -> nn.Module:
    return make_pool(spec, Fields(trivial=channels), C1).double().eval()


def _pooled(spec: PoolSpec, x: Values) -> Values:
    with torch.no_grad():
        return np.asarray(_pool(spec, x.shape[1])(torch.as_tensor(x)).numpy())


def _tolerance(kind: Regime) -> float:
    return 1e-6 if kind == "learned-lp" else 1e-11  # a learned p is a number of float32 before it is one of float64


@pytest.mark.parametrize("p", [1.5, 4.0, 7.0])
@pytest.mark.parametrize("windows", WINDOWS, ids=["3 stride 2", "4 stride 2", "5 stride 1"])
@pytest.mark.parametrize("kind", FORMULAS)
def test_numbers_are_those_of_the_formula(kind: Regime, windows: PoolSpec, p: float) -> None:
    spec = replace(windows, kind=kind, p=p)
    x = np.random.default_rng(3).standard_normal((2, 3, 9, 12))
    np.testing.assert_allclose(_pooled(spec, x), FORMULAS[kind](_windows(x, spec), spec), rtol=_tolerance(kind))


@pytest.mark.parametrize("kind", FORMULAS)
def test_padding_is_of_zeros_which_are_never_the_maximum(kind: Regime) -> None:
    spec = PoolSpec(kind, kernel=4, stride=2, padding=1)
    x = np.random.default_rng(3).standard_normal((2, 3, 8, 12))
    x[0, 0, :3, :3] = -5
    wanted = FORMULAS[kind](_windows(x, spec), spec)
    if kind == "max":
        wanted[0, 0, 0, 0] = -5
    np.testing.assert_allclose(_pooled(spec, x), wanted, rtol=_tolerance(kind))


@pytest.mark.parametrize("kind", FORMULAS)
def test_what_each_kind_does_with_sign(kind: Regime) -> None:
    x = -np.random.default_rng(3).uniform(1, 2, (1, 3, 8, 8))
    spec = PoolSpec(kind, kernel=4, stride=2)
    up, down = _pooled(spec, -x), _pooled(spec, x)
    assert (up > 0).all()
    if kind in ("average", "stochastic"):
        np.testing.assert_allclose(down, -up)
    elif kind == "max":
        assert (down < 0).all()
    else:
        np.testing.assert_allclose(down, up)


@pytest.mark.parametrize("kind", OF_SIZE)
def test_windows_of_zeros_give_zero_and_no_gradient(kind: Regime) -> None:
    pool = _pool(PoolSpec(kind, kernel=4, stride=2), 1)
    x = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    x[..., 6:, 6:] = 1
    x.requires_grad_()
    y = pool(x)
    assert (y[..., :2, :2] == 0).all()
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert (x.grad[..., :4, :4] == 0).all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in pool.parameters())


@pytest.mark.parametrize("scale", [1e-17, 1.0, 1e20, 1e37])
@pytest.mark.parametrize(
    ("kind", "p"),
    [(kind, p) for kind in OF_SIZE for p in ((4, 64, 63.5) if kind.endswith("lp") else (4,))],
)
def test_no_number_of_float32_is_too_small_or_too_large(kind: Regime, p: float, scale: float) -> None:
    """Values over 20 powers of ten beside each other, from 1e-37 to 1e37."""
    spec = PoolSpec(kind, kernel=4, stride=2, p=p)
    rng = np.random.default_rng(5)
    x = rng.choice([-1, 1], (2, 3, 12, 12)) * 10 ** rng.uniform(-20, 0, (2, 3, 12, 12)) * scale
    x[0] = np.float32(scale)
    x[1, 0, ::2] = 0
    x[1, 1, ::4, ::4] = 0
    x = x.astype(np.float32).astype(np.float64)
    pool = make_pool(spec, Fields(trivial=3), C1).eval()
    images = torch.as_tensor(x, dtype=torch.float32).requires_grad_()
    y = pool(images)
    np.testing.assert_allclose(y.detach().numpy(), FORMULAS[kind](_windows(x, spec), spec), rtol=1e-5)
    y.sum().backward()
    assert images.grad is not None
    assert images.grad.isfinite().all()


@pytest.mark.parametrize("p", [1.0, 64.0, 1000.0, 2.0**20])
def test_lp_goes_from_the_average_of_absolute_values_to_their_maximum(p: float) -> None:
    x = torch.rand(1, 2, 8, 8)
    y = LpPool2d(2, 2, p=p)(x)
    mean, top = nn.functional.avg_pool2d(x, 2), nn.functional.max_pool2d(x, 2)
    if p == 1:
        torch.testing.assert_close(y, mean)
    else:
        assert (y <= top * 1.000001).all()
        assert (y >= top * 4 ** (-1 / p) * 0.999999).all()


@pytest.mark.parametrize("kind", FORMULAS)
def test_gradients_are_those_of_finite_differences(kind: Regime) -> None:
    pool = _pool(PoolSpec(kind, kernel=4, stride=2, padding=1, p=3.5), 2)
    x = torch.randn(1, 2, 6, 6, dtype=torch.float64, requires_grad=True)
    learned = {name: p.detach().clone().requires_grad_() for name, p in pool.named_parameters()}

    def function(x: Tensor, *parameters: Tensor) -> Tensor:
        found: Tensor = torch.func.functional_call(pool, dict(zip(learned, parameters, strict=True)), (x,))
        return found

    assert torch.autograd.gradcheck(function, (x, *learned.values()))


def test_the_envelope_is_symmetric_and_of_sum_1() -> None:
    pool = LpPool2d(5, 2, p=1, sigma=1.25)
    assert pool.weights == pytest.approx(pool.weights[::-1], rel=1e-15)
    assert sum(pool.weights) == pytest.approx(1, rel=1e-15)
    impulse = torch.zeros(1, 1, 5, 5)
    impulse[..., 2, 2] = 1
    assert float(pool(impulse)) == pytest.approx(_gaussian(PoolSpec("gaussian-lp", kernel=5)).max(), rel=1e-6)


def test_learned_exponents_are_shared_by_the_channels_of_a_field() -> None:
    pool = LearnedLpPool2d(D4, MIXED, 2, 2, p=3.0)
    assert [p.shape for p in pool.parameters()] == [(5,)]
    torch.testing.assert_close(pool.exponents, torch.full((5,), 3.0))
    with torch.no_grad():
        pool.rho.copy_(torch.linspace(-20, 60, 5))
    assert (pool.exponents >= 1).all()
    x = torch.randn(2, 19, 8, 8)
    each = pool.exponents.tolist()
    of_channels = [*[each[0]] * 8, *[each[1]] * 8, *each[2:]]
    wanted = torch.cat([LpPool2d(2, 2, p=p)(x[:, c : c + 1]) for c, p in enumerate(of_channels)], dim=1)
    torch.testing.assert_close(pool(x), wanted)
    torch.testing.assert_close(pool.plain()(x), pool(x))


@pytest.mark.parametrize("p", [1.01, 4.0, 40.0, 800.0])
def test_learning_begins_at_the_exponent_asked_for(p: float) -> None:
    assert LearnedLpPool2d(C1, Fields(trivial=1), 2, 2, p=p).exponents.item() == pytest.approx(p, rel=1e-5)


def test_an_exponent_learns_which_norm_was_taken() -> None:
    torch.manual_seed(2)
    pool, wanted = LearnedLpPool2d(C1, Fields(trivial=1), 4, 4, p=2.0), LpPool2d(4, 4, p=6.0)
    optimiser = torch.optim.Adam(pool.parameters(), lr=0.1)
    for _ in range(300):
        x = torch.randn(4, 1, 16, 16)
        loss = (pool(x) - wanted(x)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert pool.exponents.item() == pytest.approx(6, abs=0.1)


@pytest.mark.parametrize(
    ("fields", "by_max"),
    [
        (Fields(trivial=5), [True, True, True, False, False]),
        (Fields(regular=3), [True] * 8 + [False] * 4),
        (Fields(regular=1, trivial=1), None),
        (Fields(regular=3, trivial=2), [True] * 8 + [False] * 4 + [True, False]),
    ],
)
def test_heterogeneous_pooling_divides_the_fields(fields: Fields, by_max: list[bool] | None) -> None:
    spec = PoolSpec("heterogeneous")
    if by_max is None:
        with pytest.raises(ValueError, match=r"^regimes are \('max', 'average'\) for Fields\(regular=1, trivial=1\); "):
            make_pool(spec, fields, C4)
        return
    pool = make_pool(spec, fields, C4)
    assert pool.fields == fields
    x = torch.randn(2, fields.channels(C4), 6, 8)
    chosen = torch.tensor(by_max)[:, None, None]
    wanted = torch.where(chosen, nn.functional.max_pool2d(x, 2), nn.functional.avg_pool2d(x, 2))
    torch.testing.assert_close(pool(x), wanted)


def test_side_by_side_pooling_keeps_the_order_of_fields() -> None:
    pool = make_pool(PoolSpec("side-by-side", regimes=("max", "average", "entropy")), MIXED, C4)
    assert pool.fields == Fields(6, 9)
    x = torch.randn(2, 11, 6, 8)
    parts = [make_pool(PoolSpec(kind), MIXED, C4)(x) for kind in ("max", "average", "entropy")]
    wanted = torch.cat([part[:, :8] for part in parts] + [part[:, 8:] for part in parts], dim=1)
    assert torch.equal(pool(x), wanted)


def test_maxout_compares_maps_that_are_an_equal_number_apart() -> None:
    x = torch.randn(2, 12, 4, 5)
    torch.testing.assert_close(MaxoutChannels(3)(x), x.reshape(2, 3, 4, 4, 5).amax(dim=1))


def test_global_pooling_is_over_all_pixels() -> None:
    x = torch.randn(2, 3, 5, 7)
    np.testing.assert_allclose(GlobalAverage()(x).numpy(), x.numpy().mean(axis=(2, 3)), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(GlobalMax()(x).numpy(), x.numpy().max(axis=(2, 3)))


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"kind": "median"}, r"^kind is 'median'; a pooling is one of max, average, lp, learned-lp, gaussian-lp, stochast"),
    ({"kernel": 0}, r"^kernel is 0; windows need at least 1$"),
    ({"stride": 0}, r"^stride is 0; windows need at least 1$"),
    ({"padding": 2, "kernel": 3}, r"^padding is 2 for a kernel of 3; it must be 0 to half the kernel, so that every"),
    ({"padding": -1}, r"^padding is -1 for a kernel of 2; it must be 0 to half the kernel"),
    ({"kind": "lp", "p": 0.5}, r"^p is 0.5; it must be a finite number of at least 1 \(1 is the average"),
    ({"kind": "lp", "p": math.inf}, r"^p is inf; it must be a finite number of at least 1"),
    ({"kind": "lp", "p": math.nan}, r"^p is nan; it must be a finite number of at least 1"),
    ({"kind": "learned-lp", "p": 1}, r"^p is 1, which p = 1 \+ softplus\(rho\) does not reach: begin learning above"),
    ({"kind": "gaussian-lp"}, r"^kernel is 2 with stride 2; gaussian-lp is for windows that overlap: give a kernel a"),
    ({"kind": "gaussian-lp", "kernel": 4, "sigma": 0.4}, r"^sigma is 0.4 for 4 x 4 windows; .* at least kernel / 8 = "),
    ({"kind": "side-by-side", "regimes": ("max",)}, r"^regimes are \('max',\); side-by-side pooling needs at least tw"),
    (
        {"kind": "heterogeneous", "regimes": ("max", "side-by-side")},
        r"^regimes hold 'side-by-side'; each is one of max, average, lp, learned-lp, gaussian-lp, stochastic, entropy$",
    ),
    ({"kind": "side-by-side", "regimes": ("max", "gaussian-lp")}, r"^kernel is 2 with stride 2; gaussian-lp is for"),
    ({"kind": "side-by-side", "regimes": ("max", "learned-lp"), "p": 1}, r"^p is 1, which p = 1 \+ softplus"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED)
def test_what_is_no_pooling_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PoolSpec(**arguments)


def test_maps_that_cannot_be_pooled_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^fields are Fields\(regular=0, trivial=0\); a pooling needs at least one$"):
        make_pool(PoolSpec(), Fields(), D4)
    with pytest.raises(ValueError, match=r"^pieces is 1; a maximum is over at least 2$"):
        MaxoutChannels(1)
    with pytest.raises(ValueError, match=r"^pieces is 3 for 4 channels, which it does not divide; give a multiple of"):
        MaxoutChannels(3)(torch.zeros(1, 4, 2, 2))


def test_a_kind_says_what_its_pool_is() -> None:
    kinds: dict[Kind, type[nn.Module]] = {
        "max": nn.MaxPool2d,
        "average": nn.AvgPool2d,
        "lp": LpPool2d,
        "learned-lp": LearnedLpPool2d,
        "stochastic": StochasticPool2d,
        "entropy": EntropyPool2d,
    }
    for kind, layer in kinds.items():
        pool = make_pool(PoolSpec(kind), MIXED, D4)
        assert isinstance(pool, RegimePool)
        assert type(pool.pool) is layer
        assert pool.fields == MIXED
