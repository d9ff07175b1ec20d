"""One law for every layer: ``layer(L_g x) = L_g layer(x)``, for every element, and named cases where it fails.

The cases are those of the files ``cases_*.py`` beside this one.
"""

import importlib
import io
import logging
import warnings
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from case import Case, give_statistics
from numpy.typing import NDArray
from torch import Tensor, nn

from emboundary.model.equivariance import equivariance_error
from emboundary.model.groups import Group

TOPICS = sorted(path.stem for path in Path(__file__).parent.glob("cases_*.py"))
CASES: list[Case] = [case for topic in TOPICS for case in importlib.import_module(topic).CASES]
Output = NDArray[np.float32] | Exception
EXPORTED = [case for case in CASES if case.onnx]
AT_A_TIME = 16
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterable[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def layer_and_input(case: Case, group: Group, dtype: torch.dtype, batch: int = 2) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(7)
    layer = case.build(group)
    give_statistics(layer)
    x = torch.randn(batch, case.inputs.channels(group), *case.sides, dtype=torch.float64)
    return layer.to(dtype), x.to(dtype)


def largest(case: Case) -> Group:
    return max(case.groups, key=lambda group: group.order)


def of_cases(cases: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in cases])


def test_every_case_has_a_name_of_its_own() -> None:
    names = [case.name for case in CASES]
    assert TOPICS
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=["float64", "float32"])
@pytest.mark.parametrize(
    ("case", "group"),
    [pytest.param(case, group, id=f"{case.name}-{group.name}") for case in CASES for group in case.groups],
)
def test_law(case: Case, group: Group, dtype: torch.dtype) -> None:
    """It holds for every element; where it is said to fail, it fails by as much as is said."""
    layer, x = layer_and_input(case, group, dtype)
    errors = equivariance_error(layer, x, group, act_in=case.on_input, act_out=case.on_output)
    with torch.no_grad():
        assert layer(x).shape[1] == case.outputs.channels(group)
    if case.violation is None:
        assert errors.worst.relative_max < TOLERANCES[dtype], errors.worst
    else:
        assert errors.worst.relative_max > case.violation, errors.worst


@of_cases(EXPORTED)
def test_exported_layer_computes_the_same(case: Case) -> None:
    layer, x = exportable(case)
    with torch.no_grad():
        wanted = layer(x).numpy()
    got = exported_outputs(EXPORTED.index(case) // AT_A_TIME)[case.name]
    if isinstance(got, Exception):
        raise got
    assert got.shape == wanted.shape
    assert np.abs(got - wanted).max() <= 1e-5 * np.abs(wanted).max()


def exportable(case: Case) -> tuple[nn.Module, Tensor]:
    layer, x = layer_and_input(case, largest(case), torch.float32)
    return layer.eval(), x


class Together(nn.Module):
    """Layers side by side, each with an input of its own."""

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(layer(x) for layer, x in zip(self.layers, inputs, strict=True))


@cache
def exported_outputs(chunk: int) -> dict[str, Output]:
    """What ONNX Runtime computes for some cases, or why it cannot.

    One file serves several, because most of an export's time is its start; where it fails, each gets a file of its
    own, so that only the one that is to blame fails.
    """
    some = EXPORTED[chunk * AT_A_TIME :][:AT_A_TIME]
    try:
        return outputs(some)
    except Exception:
        found: dict[str, Output] = {}
        for case in some:
            try:
                found |= outputs([case])
            except Exception as error:
                found[case.name] = error
        return found


def outputs(cases: list[Case]) -> dict[str, Output]:
    layers, inputs = zip(*map(exportable, cases), strict=True)
    names = [f"x{i}" for i in range(len(cases))]
    fed = {name: x.numpy() for name, x in zip(names, inputs, strict=True)}
    given = session(Together(layers), inputs, names).run(None, fed)
    return {case.name: y for case, y in zip(cases, given, strict=True)}


def session(net: nn.Module, inputs: tuple[Tensor, ...], names: list[str]) -> ort.InferenceSession:
    logger, file = logging.getLogger("torch.onnx"), io.BytesIO()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's remarks about itself
            program = torch.onnx.export(net, inputs, dynamo=True, opset_version=20, input_names=names, verbose=False)
    finally:
        logger.setLevel(level)
    assert program is not None
    program.save(file)
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return ort.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])


@of_cases([case for case in CASES if case.gradients])
def test_gradients_are_those_of_finite_differences(case: Case) -> None:
    """Of the input and of every parameter, in float64."""
    layer, x = layer_and_input(case, largest(case), torch.float64, batch=1)
    learned = {name: p.detach().clone().requires_grad_() for name, p in layer.named_parameters() if p.numel()}

    def function(x: Tensor, *parameters: Tensor) -> Tensor:
        found: Tensor = torch.func.functional_call(layer, dict(zip(learned, parameters, strict=True)), (x,))
        return found

    assert torch.autograd.gradcheck(function, (x.requires_grad_(), *learned.values()), fast_mode=True)
