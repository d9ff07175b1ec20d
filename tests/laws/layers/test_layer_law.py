"""One law for every layer: ``layer(L_g x) = L_g layer(x)``, for every element, and named cases where it fails.

The cases are those of the files ``cases_*.py`` beside this one.
"""

import importlib
import io
import logging
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from case import Case, give_statistics
from torch import Tensor, nn

from emboundary.model.equivariance import equivariance_error
from emboundary.model.groups import Group

TOPICS = sorted(path.stem for path in Path(__file__).parent.glob("cases_*.py"))
CASES: list[Case] = [case for topic in TOPICS for case in importlib.import_module(topic).CASES]
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


def of_cases(chosen: Callable[[Case], bool]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in CASES if chosen(case)])


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


@of_cases(lambda case: case.onnx)
def test_exported_layer_computes_the_same(case: Case) -> None:
    layer, x = layer_and_input(case, largest(case), torch.float32)
    layer.eval()
    with torch.no_grad():
        wanted = layer(x).numpy()
    (got,) = session(layer, x).run(None, {"x": x.numpy()})
    assert got.shape == wanted.shape
    assert np.abs(got - wanted).max() <= 1e-5 * np.abs(wanted).max()


def session(layer: nn.Module, x: Tensor) -> ort.InferenceSession:
    logger, file = logging.getLogger("torch.onnx"), io.BytesIO()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's remarks about itself
            program = torch.onnx.export(
                layer, (x,), dynamo=True, opset_version=20, input_names=["x"], output_names=["y"], verbose=False
            )
    finally:
        logger.setLevel(level)
    assert program is not None
    program.save(file)
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return ort.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])


@of_cases(lambda case: case.gradients)
def test_gradients_are_those_of_finite_differences(case: Case) -> None:
    """Of the input and of every parameter, in float64."""
    layer, x = layer_and_input(case, largest(case), torch.float64, batch=1)
    learned = {name: p.detach().clone().requires_grad_() for name, p in layer.named_parameters() if p.numel()}

    def function(x: Tensor, *parameters: Tensor) -> Tensor:
        found: Tensor = torch.func.functional_call(layer, dict(zip(learned, parameters, strict=True)), (x,))
        return found

    assert torch.autograd.gradcheck(function, (x.requires_grad_(), *learned.values()), fast_mode=True)
