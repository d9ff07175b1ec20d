from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from emboundary.model.groups import D4, act, inverse_element
from emboundary.model.half import IMAGE_LIMIT, extreme_images, imitate, largest_value, to_half
from emboundary.model.head import head_of, name_nodes
from emboundary.model.inception import STRIDE, Segmenter, SegmenterSpec, Symmetry
from emboundary.model.repository import load_model
from emboundary.model.storage import restore_whole, store_in_half
from emboundary.model.weights import load_segmenter

MakeNetwork = Callable[[SegmenterSpec], Segmenter]
MakeGraph = Callable[[SegmenterSpec], onnx.ModelProto]
Images = NDArray[np.float32]

EVERY_SYMMETRY = pytest.mark.parametrize("symmetry", ["plain", "paper", "d4"])
BUNDLED = pytest.mark.parametrize("name", ["d4", "plain", "paper"])
# Operators of opset 20 for which ONNX Runtime's CUDA provider has kernels in float16 and in float32 (its list of
# operator kernels); those that compute with shapes would run on the CPU.
ON_GPUS = frozenset(
    {"Add", "AveragePool", "Cast", "Clip", "Concat", "Conv", "DepthToSpace", "MaxPool", "Relu", "Sigmoid", "Slice"}
    | {"Squeeze", "Unsqueeze"}
)


def noise(seed: int, rows: int = 4, columns: int = 7, channels: int = 1) -> Images:
    shape = (1, channels, rows * STRIDE, columns * STRIDE)
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def run(model: onnx.ModelProto, image: Images) -> Images:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"image": np.ascontiguousarray(image)})[0])


@cache
def bundled(name: str) -> tuple[onnx.ModelProto, Segmenter]:
    entry = load_model(name)
    return restore_whole(onnx.load(entry.path)), load_segmenter(entry.path.parent / "weights.safetensors").eval()


@cache
def bundled_half(name: str) -> onnx.ModelProto:
    return to_half(bundled(name)[0])


def types(model: onnx.ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    found = {v.name: v.type.tensor_type.elem_type for v in (*inferred.value_info, *inferred.output, *inferred.input)}
    return found | {t.name: t.data_type for t in inferred.initializer}


@EVERY_SYMMETRY
@pytest.mark.parametrize("context", [0, 1])
def test_the_rounded_network_is_near_the_one_in_torch(
    symmetry: Symmetry, context: int, network: MakeNetwork, narrow: SegmenterSpec, exported: MakeGraph
) -> None:
    spec = replace(narrow, symmetry=symmetry, context=context)
    half, image = to_half(exported(spec)), noise(1, channels=spec.channels)
    with torch.no_grad():
        wanted = torch.sigmoid(network(spec)(torch.from_numpy(image))).numpy()
    for graph in (half, imitate(half)):
        assert 0 < np.abs(run(graph, image) - wanted).max() < 5e-3


@BUNDLED
def test_the_rounded_bundled_models_are_near_those_in_torch(name: str) -> None:
    model, net = bundled(name)
    half, image = bundled_half(name), noise(2, 8, 9)
    with torch.no_grad():
        wanted = torch.sigmoid(net(torch.from_numpy(image))).numpy()
    assert 0 < np.abs(run(imitate(half), image) - wanted).max() < 5e-3
    assert half.ByteSize() < 0.55 * model.ByteSize()


def test_maps_are_rounded_in_the_imitation_as_they_are_not_on_a_cpu(narrow: SegmenterSpec, exported: MakeGraph) -> None:
    """The imitation's maps are float16 numbers: that of the last wide convolution, which the head takes, shows it."""
    half = to_half(exported(replace(narrow, symmetry="d4")))
    shown = imitate(half)
    (cast,) = [node for node in half.graph.node if node.op_type == "Cast" and node.attribute[0].i == TensorProto.FLOAT]
    shown.graph.output.append(onnx.helper.make_empty_tensor_value_info(cast.output[0]))
    session = ort.InferenceSession(shown.SerializeToString(), providers=["CPUExecutionProvider"])
    values = session.run([cast.output[0]], {"image": noise(3)})[0]
    np.testing.assert_array_equal(values, values.astype(np.float16).astype(np.float32))
    assert len(np.unique(values)) > 100
    assert not np.array_equal(run(half, noise(3)), run(imitate(half), noise(3)))


def test_the_imitation_of_a_convolution_is_its_float32_sum_rounded_once() -> None:
    rng = np.random.default_rng(0)
    bank, image = rng.standard_normal((1, 1, 3, 3)).astype(np.float32), noise(4, 1, 1)
    model = one_convolution(bank)
    found = run(imitate(to_half(model, whole=[])), image)
    rounded = [torch.from_numpy(a.astype(np.float16).astype(np.float32)) for a in (image, bank)]
    wanted = torch.sigmoid(torch.conv2d(*rounded, padding=1).half()).numpy()
    np.testing.assert_array_equal(found, wanted)


def one_convolution(bank: Images) -> onnx.ModelProto:
    axes = ["n", 1, "y", "x"]
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Conv", ["image", "bank"], ["logit"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
            onnx.helper.make_node("Sigmoid", ["logit"], ["probability"]),
        ],
        "one",
        [onnx.helper.make_tensor_value_info("image", TensorProto.FLOAT, axes)],
        [onnx.helper.make_tensor_value_info("probability", TensorProto.FLOAT, axes)],
        [numpy_helper.from_array(bank, "bank")],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)


def test_a_symmetric_network_stays_within_twice_its_distance(
    narrow: SegmenterSpec, exported: MakeGraph, network: MakeNetwork
) -> None:
    spec = replace(narrow, symmetry="d4")
    half, image = imitate(to_half(exported(spec))), noise(5)
    with torch.no_grad():
        wanted = torch.sigmoid(network(spec)(torch.from_numpy(image))).numpy()
    back = [act(inverse_element(e), run(half, act(e, image))) for e in D4.elements]
    distance = max(np.abs(b - wanted).max() for b in back)
    violation = max(np.abs(b - back[0]).max() for b in back)
    assert violation <= 2 * distance + 1e-5
    assert violation < 2e-3


def test_filters_of_one_orbit_hold_the_same_numbers_afterwards(narrow: SegmenterSpec, exported: MakeGraph) -> None:
    whole = exported(replace(narrow, symmetry="d4"))
    half = {t.name: numpy_helper.to_array(t) for t in to_half(whole).graph.initializer}
    for tensor in whole.graph.initializer:
        name = f"{tensor.name}_float16"
        if name in half:
            np.testing.assert_array_equal(half[name], numpy_helper.to_array(tensor).astype(np.float16))


@BUNDLED
def test_every_node_has_a_kernel_on_gpus_and_none_computes_shapes(name: str) -> None:
    half = bundled_half(name)
    assert {node.op_type for node in half.graph.node} <= ON_GPUS
    assert {node.domain for node in half.graph.node} == {""}


@EVERY_SYMMETRY
def test_images_and_probabilities_and_the_head_are_float32_and_the_trunk_is_float16(
    symmetry: Symmetry, narrow: SegmenterSpec, exported: MakeGraph
) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(exported(replace(narrow, symmetry=symmetry)))
    name_nodes(model)
    head, half = head_of(model), to_half(model)
    kinds = types(half)
    assert kinds["image"] == kinds["probability"] == TensorProto.FLOAT
    assert half.graph.input == model.graph.input
    assert half.graph.output == model.graph.output
    computed = {node.name: node for node in half.graph.node if node.op_type not in ("Cast", "Clip")}
    assert len(computed) == len(model.graph.node)
    for name, node in computed.items():
        wanted = TensorProto.FLOAT if name in head else TensorProto.FLOAT16
        assert kinds[node.output[0]] == wanted, name
        if node.op_type == "Conv":
            assert {kinds[given] for given in node.input} == {wanted}, name
    assert sum(node.op_type == "Cast" for node in half.graph.node) == 2
    assert {n.op_type for n in computed.values() if n.name in head} >= {"Conv", "Sigmoid"}


def test_any_nodes_may_stay_float32_and_all_may_be_float16(narrow: SegmenterSpec, exported: MakeGraph) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(exported(replace(narrow, symmetry="plain")))
    name_nodes(model)
    whole, image = run(model, noise(6)), noise(6)
    everything = [node.name for node in model.graph.node]
    np.testing.assert_allclose(run(to_half(model, whole=everything), image), whole, rtol=0, atol=1e-6)
    nothing = to_half(model, whole=[])
    assert types(nothing)["probability"] == TensorProto.FLOAT
    assert 0 < np.abs(run(imitate(nothing), image) - whole).max() < 5e-3


def test_a_file_stored_in_half_is_taken_as_well(narrow: SegmenterSpec, exported: MakeGraph) -> None:
    stored, image = store_in_half(exported(replace(narrow, symmetry="d4"))), noise(7)
    half = to_half(stored)
    assert sum(node.op_type == "Cast" for node in half.graph.node) == 2
    assert 0 < np.abs(run(imitate(half), image) - run(stored, image)).max() < 5e-3


def test_the_given_graph_stays_as_it_is_and_the_result_repeats(narrow: SegmenterSpec, exported: MakeGraph) -> None:
    model = exported(replace(narrow, symmetry="d4"))
    before = model.SerializeToString()
    first, again = to_half(model), to_half(model)
    assert model.SerializeToString() == before
    assert first.SerializeToString(deterministic=True) == again.SerializeToString(deterministic=True)


@BUNDLED
@pytest.mark.parametrize("value", [1e5, np.inf])
def test_finite_images_give_finite_probabilities_however_bright(name: str, value: float) -> None:
    half, image = imitate(bundled_half(name)), noise(8, 12, 12)
    bright, dark = (np.where(image > 2, np.float32(v), image) for v in (value, -value))
    assert np.isfinite(run(half, np.concatenate([bright, dark]))).all()


def test_images_are_limited_far_outside_what_they_hold(narrow: SegmenterSpec, exported: MakeGraph) -> None:
    half = to_half(exported(replace(narrow, symmetry="d4")))
    bright = noise(9) > 1
    at, beyond, below = (np.where(bright, np.float32(k * IMAGE_LIMIT), noise(9)) for k in (1, 2, 0.5))
    np.testing.assert_array_equal(run(half, beyond), run(half, at))
    assert np.abs(run(half, below) - run(half, at)).max() > 0


def test_without_the_limit_a_bright_voxel_would_spoil_its_surroundings() -> None:
    """What the rule is there for: the same arithmetic without it gives no numbers."""
    bank = np.array([300, -300, 1] * 3, dtype=np.float32).reshape(1, 1, 3, 3)
    graph = imitate(to_half(one_convolution(bank / 300), whole=[]))
    for tensor in graph.graph.initializer:
        if tensor.name.startswith("bank"):
            tensor.CopyFrom(numpy_helper.from_array(bank, tensor.name))
        if tensor.name.startswith("image_"):
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1e6), tensor.name))
    assert not np.isfinite(run(graph, np.full((1, 1, 8, 8), 1e6, dtype=np.float32))).all()


def test_a_network_whose_maps_could_leave_the_range_is_refused() -> None:
    bank = np.full((1, 1, 3, 3), 20.0, dtype=np.float32)
    assert largest_value(one_convolution(bank), extreme_images(1)) == pytest.approx(9 * 20 * IMAGE_LIMIT)
    with pytest.raises(
        ValueError,
        match=r"^maps reach 23040 on images of 128 standard deviations; float16 ends at 65504, and a factor of 4 must",
    ):
        to_half(one_convolution(bank))


@pytest.mark.parametrize("value", [65536.0, np.inf, np.nan])
def test_a_weight_that_is_no_float16_number_is_refused(value: float) -> None:
    bank = np.zeros((1, 1, 3, 3), dtype=np.float32)
    bank[0, 0, 0, 0] = value
    with pytest.raises(ValueError, match=r"^(maps|weights bank) reach"):
        to_half(one_convolution(bank))
