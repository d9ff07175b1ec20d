from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from emboundary.model.integer_lowering import (
    averages_to_convolutions,
    orbit_pooling_to_maxima,
    rejoin_split_convolutions,
)
from emboundary.model.lowering import split_unaligned_concatenations

Node = onnx.NodeProto
Constants = dict[str, NDArray[np.generic]]
RNG = np.random.default_rng(4)
WIDE = {"kernel_shape": [3, 3], "pads": [1] * 4}


def weights(*shape: int) -> NDArray[np.float32]:
    """Small whole numbers, whose sums are exact in any order."""
    return RNG.integers(-4, 5, shape).astype(np.float32)


def model_of(nodes: list[Node], constants: Constants, inputs: dict[str, int]) -> onnx.ModelProto:
    """A graph of maps with the given channels; its output is that of the last node."""
    float32 = TensorProto.FLOAT
    given = [helper.make_tensor_value_info(n, float32, ["n", c, "y", "x"]) for n, c in inputs.items()]
    out = helper.make_tensor_value_info(nodes[-1].output[0], float32, [None] * 4)
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "g", given, [out], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def rewritten(model: onnx.ModelProto, *passes: Callable[[ir.Graph], None]) -> tuple[onnx.ModelProto, list[str]]:
    graph_model = ir.from_proto(model)
    for rewrite in passes:
        rewrite(graph_model.graph)
    result = ir.to_proto(graph_model)
    onnx.checker.check_model(result)
    return result, [node.op_type for node in result.graph.node]


def run(model: onnx.ModelProto, **feeds: NDArray[np.float32]) -> NDArray[np.float32]:
    options = ort.SessionOptions()
    options.log_severity_level = 3  # constants that a rewrite left behind
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, feeds)[0])


@pytest.mark.parametrize("bias", [True, False])
def test_a_convolution_that_was_split_becomes_one_again(bias: bool) -> None:
    nodes = [
        helper.make_node("Concat", ["a", "b"], ["ab"], axis=1),
        helper.make_node("Conv", ["ab", "w", "s"] if bias else ["ab", "w"], ["out"], **WIDE),
    ]
    model = model_of(nodes, {"w": weights(4, 18, 3, 3), "s": weights(4)}, {"a": 16, "b": 2})
    feeds = {"a": weights(1, 16, 5, 6), "b": weights(1, 2, 5, 6)}
    lowered, operators = rewritten(model, split_unaligned_concatenations, rejoin_split_convolutions)
    assert operators[-2:] == ["Concat", "Conv"]
    assert operators.count("Conv") == 1
    np.testing.assert_array_equal(run(lowered, **feeds), run(model, **feeds))


@pytest.mark.parametrize(
    ("one", "other"),
    [(WIDE, {**WIDE, "group": 2}), (WIDE, {"kernel_shape": [1, 1]}), ({"kernel_shape": [1, 1]},) * 2],
    ids=["groups", "kernels", "1x1"],
)
def test_convolutions_that_are_not_one_stay_two(one: dict[str, object], other: dict[str, object]) -> None:
    def bank(geometry: dict[str, object]) -> NDArray[np.float32]:
        return weights(4, 1 if "group" in geometry else 2, *geometry["kernel_shape"])  # type: ignore[misc]

    nodes = [
        helper.make_node("Conv", ["a", "w"], ["u"], **one),
        helper.make_node("Conv", ["b", "v"], ["t"], **other),
        helper.make_node("Add", ["u", "t"], ["out"]),
    ]
    model = model_of(nodes, {"w": bank(one), "v": bank(other)}, {"a": 2, "b": 2})
    assert rewritten(model, rejoin_split_convolutions)[1] == ["Conv", "Conv", "Add"]


def test_a_convolution_with_another_consumer_stays() -> None:
    nodes = [
        helper.make_node("Conv", ["a", "w"], ["u"], **WIDE),
        helper.make_node("Conv", ["b", "w"], ["t"], **WIDE),
        helper.make_node("Add", ["u", "t"], ["sum"]),
        helper.make_node("Relu", ["u"], ["beside"]),
        helper.make_node("Add", ["sum", "beside"], ["out"]),
    ]
    model = model_of(nodes, {"w": weights(4, 2, 3, 3)}, {"a": 2, "b": 2})
    assert rewritten(model, rejoin_split_convolutions)[1] == ["Conv", "Conv", "Add", "Relu", "Add"]


@pytest.mark.parametrize("sides", [(4, 4), (5, 7)])
def test_a_mean_that_counts_zeros_is_a_depthwise_convolution(sides: tuple[int, int]) -> None:
    model = model_of([helper.make_node("AveragePool", ["a"], ["out"], count_include_pad=1, **WIDE)], {}, {"a": 3})
    lowered, operators = rewritten(model, averages_to_convolutions)
    assert operators == ["Conv"]
    image = weights(2, 3, *sides)
    np.testing.assert_allclose(run(lowered, a=image), run(model, a=image), rtol=0, atol=1e-6)


def test_a_mean_that_leaves_its_padding_out_is_refused() -> None:
    model = model_of([helper.make_node("AveragePool", ["a"], ["out"], **WIDE)], {}, {"a": 3})
    with pytest.raises(ValueError, match=r"leaves its padding out of the mean; only a mean that counts it as zeros"):
        rewritten(model, averages_to_convolutions)


def test_a_pooling_along_channels_is_a_maximum_over_each_orbit() -> None:
    nodes = [
        helper.make_node("Unsqueeze", ["a", "axis"], ["u"]),
        helper.make_node("MaxPool", ["u"], ["v"], kernel_shape=[4, 1, 1], strides=[4, 1, 1]),
        helper.make_node("Squeeze", ["v", "axis"], ["out"]),
    ]
    model = model_of(nodes, {"axis": np.array([1])}, {"a": 12})
    lowered, operators = rewritten(model, orbit_pooling_to_maxima)
    assert operators == ["Unsqueeze", "Reshape", "ReduceMax"]
    for shape in ((1, 12, 1, 1), (2, 12, 5, 7)):
        image = weights(*shape)
        np.testing.assert_array_equal(run(lowered, a=image), run(model, a=image))
        np.testing.assert_array_equal(run(lowered, a=image), image.reshape(shape[0], 3, 4, *shape[2:]).max(2))


def test_a_pooling_of_pixels_is_left_alone() -> None:
    model = model_of([helper.make_node("MaxPool", ["a"], ["out"], kernel_shape=[2, 2], strides=[2, 2])], {}, {"a": 3})
    assert rewritten(model, orbit_pooling_to_maxima)[1] == ["MaxPool"]
