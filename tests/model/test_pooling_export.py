"""Pooling as ONNX: one graph for images of every size, of operators that look no farther than their window."""

import io
import logging
import warnings

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

from emboundary.model.group_conv import Fields
from emboundary.model.groups import C4
from emboundary.model.pooling import GlobalAverage, GlobalMax, MaxoutChannels, PoolSpec, make_pool

MAP = Fields(regular=2, trivial=4)
LAYERS: dict[str, nn.Module] = {
    "max": make_pool(PoolSpec(padding=1), MAP, C4),
    "average": make_pool(PoolSpec("average", padding=1), MAP, C4),
    "lp": make_pool(PoolSpec("lp", kernel=4, padding=1), MAP, C4),
    "lp_3": make_pool(PoolSpec("lp", p=3), MAP, C4),
    "learned_lp": make_pool(PoolSpec("learned-lp"), MAP, C4),
    "learned_lp_plain": make_pool(PoolSpec("learned-lp"), MAP, C4).pool.plain(),  # type: ignore[operator, union-attr]
    "gaussian_lp": make_pool(PoolSpec("gaussian-lp", kernel=3, padding=1), MAP, C4),
    "stochastic": make_pool(PoolSpec("stochastic"), MAP, C4),
    "entropy": make_pool(PoolSpec("entropy"), MAP, C4),
    "heterogeneous": make_pool(PoolSpec("heterogeneous", regimes=("max", "lp")), MAP, C4),
    "side_by_side": make_pool(PoolSpec("side-by-side", regimes=("average", "entropy")), MAP, C4),
    "maxout": MaxoutChannels(3),
    "global_average": GlobalAverage(),
    "global_max": GlobalMax(),
}
# What reaches no farther than a window, and what the two global ones need.
OPERATORS = {"Abs", "Add", "AveragePool", "Concat", "Div", "Greater", "Max", "MaxPool", "Mul", "Pad", "Pow", "Slice"}
OPERATORS |= {"Sqrt", "Where", "ReduceMax", "ReduceMean"}


class _All(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(LAYERS.values())

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(layer(x) for layer in self.layers)


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    logger = logging.getLogger("torch.onnx")
    level, axes = logger.level, dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's remarks about itself
            program = torch.onnx.export(
                _All().eval(),
                (torch.zeros(2, 12, 8, 10),),
                dynamo=True,
                opset_version=20,
                input_names=["x"],
                dynamic_shapes=(axes,),
                verbose=False,
            )
    finally:
        logger.setLevel(level)
    assert program is not None
    file = io.BytesIO()
    program.save(file)
    return onnx.load_from_string(file.getvalue())


@pytest.fixture(scope="module")
def session(model: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(("height", "width"), [(8, 10), (4, 4), (14, 26), (9, 7)])
def test_one_file_serves_images_of_every_size(session: ort.InferenceSession, height: int, width: int) -> None:
    x = torch.randn(3, 12, height, width)
    x[0, :, :4, :4] = 0
    with torch.no_grad():
        wanted = _All().eval()(x)
    for name, want, got in zip(LAYERS, wanted, session.run(None, {"x": x.numpy()}), strict=True):
        np.testing.assert_allclose(got, want.numpy(), rtol=1e-5, atol=1e-6, err_msg=name)


def test_no_operator_looks_farther_than_its_window_or_holds_a_size(model: onnx.ModelProto) -> None:
    constants = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:
        if constants.issuperset(node.input):
            constants.update(node.output)  # what is made of learned exponents alone
        else:
            assert node.op_type in OPERATORS


def test_lp_pooling_is_right_over_the_range_of_numbers(session: ort.InferenceSession) -> None:
    x = (10 ** torch.empty(1, 12, 8, 8).uniform_(-20, 20)) * torch.randn(1, 12, 8, 8).sign()
    got = dict(zip(LAYERS, session.run(None, {"x": x.numpy()}), strict=True))
    for name in ("lp", "lp_3", "learned_lp", "gaussian_lp", "stochastic", "entropy"):
        with torch.no_grad():
            wanted = LAYERS[name].eval().double()(x.double())
        LAYERS[name].float()
        np.testing.assert_allclose(got[name], wanted, rtol=1e-5, err_msg=name)
