from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from emboundary.model.lowering import (
    deconvolutions_to_subpixel,
    flatten_concatenations,
    group_maxima_to_pooling,
    lower,
    split_unaligned_concatenations,
)

Node = onnx.NodeProto
Constants = dict[str, NDArray[np.generic]]
RNG = np.random.default_rng(3)


def weights(*shape: int) -> NDArray[np.float32]:
    """Small whole numbers, whose sums are exact in any order."""
    return RNG.integers(-4, 5, shape).astype(np.float32)


def model_of(nodes: list[Node], constants: Constants, inputs: dict[str, int]) -> onnx.ModelProto:
    """A graph of maps with the given channels; its output is that of the last node."""
    float32 = TensorProto.FLOAT
    given = [helper.make_tensor_value_info(n, float32, ["n", c, f"y_{n}", f"x_{n}"]) for n, c in inputs.items()]
    out = helper.make_tensor_value_info(nodes[-1].output[0], float32, [None] * 4)
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "g", given, [out], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def rewritten(model: onnx.ModelProto, rewrite: Callable[[ir.Graph], None]) -> tuple[onnx.ModelProto, list[str]]:
    graph_model = ir.from_proto(model)
    rewrite(graph_model.graph)
    result = ir.to_proto(graph_model)
    onnx.checker.check_model(result)
    return result, [node.op_type for node in result.graph.node]


def run(model: onnx.ModelProto, **feeds: NDArray[np.float32]) -> NDArray[np.float32]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, feeds)[0])


def deconvolution(stride: int, *, relu: bool, bias: bool = True, **changes: list[int]) -> onnx.ModelProto:
    geometry = {"kernel_shape": [2 * stride] * 2, "strides": [stride] * 2, "pads": [stride // 2] * 4} | changes
    inputs = ["image", "w", "b"] if bias else ["image", "w"]
    nodes = [helper.make_node("ConvTranspose", inputs, ["u"], **geometry)]
    if relu:
        nodes.append(helper.make_node("Relu", ["u"], ["v"]))
    kernel = geometry["kernel_shape"]
    constants: Constants = {"w": weights(3, 2, *kernel)} | ({"b": weights(2)} if bias else {})
    return model_of(nodes, constants, {"image": 3})


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("stride", [2, 4, 8])
def test_a_deconvolution_is_a_convolution_moved_into_place(stride: int, relu: bool) -> None:
    model = deconvolution(stride, relu=relu)
    lowered, operators = rewritten(model, deconvolutions_to_subpixel)
    assert operators == ["Conv", *(["Relu"] if relu else []), "DepthToSpace", "Slice"]
    for sides in ((1, 1), (3, 5)):
        image = weights(2, 3, *sides)
        np.testing.assert_array_equal(run(lowered, image=image), run(model, image=image))


def test_a_deconvolution_without_bias_is_lowered_too() -> None:
    model = deconvolution(2, relu=False, bias=False)
    image = weights(1, 3, 4, 4)
    lowered, _ = rewritten(model, deconvolutions_to_subpixel)
    np.testing.assert_array_equal(run(lowered, image=image), run(model, image=image))


def test_a_relu_beside_another_consumer_stays_behind() -> None:
    geometry = {"kernel_shape": [4, 4], "strides": [2, 2], "pads": [1] * 4}
    nodes = [
        helper.make_node("ConvTranspose", ["image", "w", "b"], ["u"], **geometry),
        helper.make_node("Relu", ["u"], ["v"]),
        helper.make_node("Add", ["u", "v"], ["sum"]),
    ]
    model = model_of(nodes, {"w": weights(3, 2, 4, 4), "b": weights(2)}, {"image": 3})
    lowered, operators = rewritten(model, deconvolutions_to_subpixel)
    assert operators == ["Conv", "DepthToSpace", "Slice", "Relu", "Add"]
    image = weights(1, 3, 4, 4)
    np.testing.assert_array_equal(run(lowered, image=image), run(model, image=image))


@pytest.mark.parametrize(
    "model",
    [
        deconvolution(2, relu=False, pads=[0] * 4),
        deconvolution(2, relu=False, kernel_shape=[2, 2]),
        deconvolution(3, relu=False),
    ],
    ids=["padding", "kernel", "odd stride"],
)
def test_a_deconvolution_of_another_geometry_is_refused(model: onnx.ModelProto) -> None:
    with pytest.raises(ValueError, match=r"only kernel 2 s, stride s and padding s / 2 with even s and one group"):
        rewritten(model, deconvolutions_to_subpixel)


def test_a_maximum_over_the_group_is_a_pooling() -> None:
    nodes = [
        helper.make_node("Reshape", ["image", "shape"], ["orbits"]),
        helper.make_node("ReduceMax", ["orbits", "axis"], ["pooled"], keepdims=0),
    ]
    constants: Constants = {"shape": np.array([2, 3, 4, 5, 6]), "axis": np.array([2])}
    model = model_of(nodes, constants, {"image": 12})
    lowered, operators = rewritten(model, group_maxima_to_pooling)
    assert operators[-3:] == ["Unsqueeze", "MaxPool", "Squeeze"]
    image = weights(2, 12, 5, 6)
    np.testing.assert_array_equal(run(lowered, image=image), run(model, image=image))
    np.testing.assert_array_equal(run(lowered, image=image), image.reshape(2, 3, 4, 5, 6).max(2))


def test_another_maximum_is_left_alone() -> None:
    nodes = [helper.make_node("ReduceMax", ["image", "axis"], ["pooled"], keepdims=1)]
    _, operators = rewritten(model_of(nodes, {"axis": np.array([1])}, {"image": 4}), group_maxima_to_pooling)
    assert operators == ["ReduceMax"]


def joining(channels: list[int]) -> tuple[onnx.ModelProto, dict[str, NDArray[np.float32]]]:
    names = [f"part{i}" for i in range(len(channels))]
    nodes = [
        helper.make_node("Concat", names, ["joined"], axis=1),
        helper.make_node("Conv", ["joined", "w", "b"], ["out"], kernel_shape=[3, 3], pads=[1] * 4),
    ]
    constants: Constants = {"w": weights(4, sum(channels), 3, 3), "b": weights(4)}
    feeds = {name: weights(1, c, 5, 6) for name, c in zip(names, channels, strict=True)}
    return model_of(nodes, constants, dict(zip(names, channels, strict=True))), feeds


@pytest.mark.parametrize("channels", [[16, 2], [16, 8, 8, 1], [8, 8, 3, 4]])
def test_an_unaligned_join_is_a_sum_of_two_convolutions(channels: list[int]) -> None:
    model, feeds = joining(channels)
    lowered, operators = rewritten(model, split_unaligned_concatenations)
    assert operators.count("Conv") == 2
    assert operators[-1] == "Add"
    np.testing.assert_array_equal(run(lowered, **feeds), run(model, **feeds))


@pytest.mark.parametrize("channels", [[16, 16], [8, 8], [8, 4], [16, 24]], ids=str)
def test_a_join_that_would_not_gain_is_left_alone(channels: list[int]) -> None:
    _, operators = rewritten(joining(channels)[0], split_unaligned_concatenations)
    assert operators == ["Concat", "Conv"]


def test_nested_concatenations_become_one() -> None:
    nodes = [
        helper.make_node("Concat", ["a", "b"], ["ab"], axis=1),
        helper.make_node("Concat", ["ab", "c"], ["abc"], axis=1),
        helper.make_node("Concat", ["a", "abc"], ["out"], axis=1),
    ]
    model = model_of(nodes, {}, {"a": 1, "b": 2, "c": 3})
    lowered, _ = rewritten(model, flatten_concatenations)
    assert list(lowered.graph.node[-1].input) == ["a", "a", "b", "c"]
    feeds = {name: weights(1, c, 2, 2) for name, c in (("a", 1), ("b", 2), ("c", 3))}
    np.testing.assert_array_equal(run(lowered, **feeds), run(model, **feeds))


def test_a_sum_of_two_convolutions_is_fused_by_the_runtime(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["image", "w0", "b0"], ["wide"], kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node("Conv", ["image", "w1", "b1"], ["narrow"], kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node("Concat", ["wide", "narrow"], ["joined"], axis=1),
        helper.make_node("Conv", ["joined", "w", "b"], ["sum"], kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node("Relu", ["sum"], ["out"]),
    ]
    constants: Constants = {"w0": weights(16, 1, 3, 3), "b0": weights(16), "w1": weights(2, 1, 3, 3), "b1": weights(2)}
    model = model_of(nodes, constants | {"w": weights(16, 18, 3, 3), "b": weights(16)}, {"image": 1})
    for name in ("wide", "narrow", "joined", "sum"):
        channels = {"wide": 16, "narrow": 2, "joined": 18, "sum": 16}[name]
        model.graph.value_info.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", channels, "y", "x"]))
    lowered, operators = rewritten(model, lower)
    assert "Add" in operators
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(lowered.SerializeToString(), options, providers=["CPUExecutionProvider"])
    optimised = onnx.load(tmp_path / "optimised.onnx").graph.node
    if not any(node.domain == "com.microsoft.nchwc" for node in optimised):
        pytest.skip("ONNX Runtime has no blocked convolution for this CPU")
    assert not {node.op_type for node in optimised} & {"Add", "Relu"}
