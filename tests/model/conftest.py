from collections.abc import Callable
from functools import cache

import onnx
import pytest
import torch
from torch import nn

from emboundary.model.export import build_onnx
from emboundary.model.inception import Segmenter, SegmenterSpec

MakeNetwork = Callable[[SegmenterSpec], Segmenter]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def narrow() -> SegmenterSpec:
    """As deep as the shipped networks and a fraction of their width: it sees as far and costs little."""
    return SegmenterSpec(maxout="beside", stem=16, a=16, b=16, c=16, decoder=16, head=16, mix=8, last="max-mean")


@cache
def trained_looking(spec: SegmenterSpec) -> Segmenter:
    torch.manual_seed(0)
    net = Segmenter(spec)
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            norm.running_mean.uniform_(-0.2, 0.2)
            norm.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(norm.weight, 0.7, 1.3)
            nn.init.uniform_(norm.bias, -0.2, 0.2)
    return net.eval()


@pytest.fixture(scope="session")
def network() -> MakeNetwork:
    """A seeded network with statistics as after training, made once for each spec."""
    return trained_looking


@cache
def graph_of(spec: SegmenterSpec) -> onnx.ModelProto:
    return build_onnx(trained_looking(spec))


@pytest.fixture(scope="session")
def exported() -> Callable[[SegmenterSpec], onnx.ModelProto]:
    """The ONNX graph of that network, exported once for each spec."""
    return graph_of
