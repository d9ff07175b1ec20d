from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from emboundary.model.footprint import receptive_field
from emboundary.model.groups import D4, act, inverse_element
from emboundary.model.inception import STRIDE, SegmenterSpec
from emboundary.model.storage import one_digit_above, restore_whole, store_in_half

MakeGraph = Callable[[SegmenterSpec], onnx.ModelProto]


@pytest.fixture(scope="module")
def whole(narrow: SegmenterSpec, exported: MakeGraph) -> onnx.ModelProto:
    return exported(replace(narrow, symmetry="d4"))


@pytest.fixture(scope="module")
def halved(whole: onnx.ModelProto) -> onnx.ModelProto:
    return store_in_half(whole)


def run(model: onnx.ModelProto, image: NDArray[np.float32]) -> NDArray[np.float32]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"image": image})[0])


def one_layer(weight: NDArray[np.float32]) -> onnx.ModelProto:
    image, out = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 1, "y", "x"]) for n in ("image", "out"))
    node = helper.make_node("Conv", ["image", "w"], ["out"], kernel_shape=weight.shape[2:])
    graph = helper.make_graph([node], "g", [image], [out], [numpy_helper.from_array(weight, "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_the_file_is_about_half_as_large(whole: onnx.ModelProto, halved: onnx.ModelProto) -> None:
    banks = sum(numpy_helper.to_array(t).nbytes for t in whole.graph.initializer if len(t.dims) > 1)
    assert whole.ByteSize() - halved.ByteSize() > 0.45 * banks
    assert halved.ByteSize() < 0.62 * whole.ByteSize()  # this narrow network's file is a quarter names and biases


def test_the_graph_computes_what_numpy_rounds_its_weights_to(whole: onnx.ModelProto, halved: onnx.ModelProto) -> None:
    rounded = onnx.ModelProto()
    rounded.CopyFrom(whole)
    for tensor in rounded.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.ndim > 1:
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16).astype(np.float32), tensor.name))
    image = np.random.default_rng(1).standard_normal((2, 1, 3 * STRIDE, 5 * STRIDE), dtype=np.float32)
    np.testing.assert_array_equal(run(halved, image), run(rounded, image))
    assert np.abs(run(halved, image) - run(whole, image)).max() > 0


def test_restoring_gives_the_same_graph_without_casts(whole: onnx.ModelProto, halved: onnx.ModelProto) -> None:
    restored = restore_whole(halved)
    assert [node.op_type for node in restored.graph.node] == [node.op_type for node in whole.graph.node]
    assert [(t.name, t.data_type) for t in restored.graph.initializer] == [
        (t.name, t.data_type) for t in whole.graph.initializer
    ]
    image = np.random.default_rng(3).standard_normal((1, 1, 2 * STRIDE, 3 * STRIDE), dtype=np.float32)
    np.testing.assert_array_equal(run(restored, image), run(halved, image))
    assert restore_whole(whole) == whole


def test_the_symmetry_stays_exact(halved: onnx.ModelProto) -> None:
    image = np.random.default_rng(2).standard_normal((1, 1, 5 * STRIDE, 8 * STRIDE), dtype=np.float32)
    upright = run(halved, image)
    turned = [act(inverse_element(e), run(halved, np.ascontiguousarray(act(e, image)))) for e in D4.elements]
    assert max(np.abs(t - upright).max() for t in turned) < 3e-6


def test_the_runtime_folds_the_casts_away(whole: onnx.ModelProto, halved: onnx.ModelProto, tmp_path: Path) -> None:
    """The same operators run, on weights of the same type: speed cannot differ."""

    def optimised(model: onnx.ModelProto) -> list[tuple[str, list[str]]]:
        options = ort.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
        options.log_severity_level = 3
        ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        nodes = onnx.load(tmp_path / "optimised.onnx").graph.node
        return [(node.op_type, list(node.output)) for node in nodes]

    assert sorted(optimised(halved)) == sorted(optimised(whole))


def test_the_graph_that_is_given_stays_as_it_is(whole: onnx.ModelProto) -> None:
    before = whole.SerializeToString(deterministic=True)
    store_in_half(whole)
    assert whole.SerializeToString(deterministic=True) == before


def test_the_receptive_field_is_that_of_the_whole_file(whole: onnx.ModelProto, halved: onnx.ModelProto) -> None:
    assert receptive_field(halved) == receptive_field(whole)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (70000, r"^weights w reach 70000 in magnitude; float16 holds up to 65504: store them as float32$"),
        (float("nan"), r"^weights w reach nan in magnitude; float16 holds up to 65504"),
    ],
)
def test_a_weight_that_float16_cannot_hold_is_refused(weight: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        store_in_half(one_layer(np.full((1, 1, 1, 1), weight, np.float32)))


@pytest.mark.parametrize(
    ("value", "wanted"), [(0.0061, 0.007), (0.006, 0.006), (0.0095, 0.01), (1.01e-5, 2e-5), (3.0, 3.0), (0.0, 0.0)]
)
def test_a_tolerance_is_one_digit_and_not_below_what_was_measured(value: float, wanted: float) -> None:
    assert one_digit_above(value) == wanted >= value
