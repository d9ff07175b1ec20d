from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from emboundary.model.group_conv import Fields, act_on_fields
from emboundary.model.groups import D4, act, inverse_element
from emboundary.model.inception import STRIDE, SegmenterSpec
from emboundary.model.quantise import quantise
from emboundary.model.storage import store_in_half

MakeGraph = Callable[[SegmenterSpec], onnx.ModelProto]
Images = NDArray[np.float32]


def noise(seed: int, rows: int, columns: int) -> Images:
    shape = (1, 1, rows * STRIDE, columns * STRIDE)
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


@pytest.fixture(scope="module")
def whole(narrow: SegmenterSpec, exported: MakeGraph) -> onnx.ModelProto:
    return exported(replace(narrow, symmetry="d4"))


@pytest.fixture(scope="module")
def integers(whole: onnx.ModelProto) -> onnx.ModelProto:
    return quantise(whole, [noise(1, 8, 8), noise(2, 8, 8)])


def session_of(model: onnx.ModelProto, optimised: Path | None = None) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if optimised is not None:
        options.optimized_model_filepath = str(optimised)
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run(session: ort.InferenceSession, image: Images) -> Images:
    return np.asarray(session.run(None, {"image": np.ascontiguousarray(image)})[0])


def constants(model: onnx.ModelProto) -> dict[str, NDArray[np.generic]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def banks(model: onnx.ModelProto) -> dict[str, tuple[NDArray[np.generic], NDArray[np.generic]]]:
    """Integer filter banks and their scales, by the name of the map that the convolution gives."""
    held = constants(model)
    makers = {node.output[0]: node for node in model.graph.node}
    found = {}
    for node in model.graph.node:
        maker = makers.get(node.input[1]) if node.op_type == "Conv" else None
        if maker is not None and maker.op_type == "DequantizeLinear":
            found[node.output[0]] = (held[maker.input[0]], held[maker.input[1]])
    return found


def test_the_whole_network_commutes_with_rotations_and_flips(integers: onnx.ModelProto) -> None:
    session, image = session_of(integers), noise(3, 4, 7)
    upright = run(session, image)
    turned = [act(inverse_element(e), run(session, act(e, image))) for e in D4.elements]
    assert max(np.abs(t - upright).max() for t in turned) < 1e-6


def test_before_its_head_the_symmetry_holds_bit_for_bit(integers: onnx.ModelProto, narrow: SegmenterSpec) -> None:
    """The last quantised map, of 8 channels an orbit: turned images give it turned and permuted, without any error."""
    model = onnx.ModelProto()
    model.CopyFrom(integers)
    last = [node for node in model.graph.node if node.op_type == "DequantizeLinear"][-1]
    del model.graph.output[:]
    model.graph.output.append(onnx.helper.make_tensor_value_info(last.output[0], onnx.TensorProto.FLOAT, [None] * 4))
    session, image = session_of(model), noise(4, 3, 5)
    upright = run(session, image)
    assert upright.shape[1] == narrow.head
    assert len(np.unique(upright)) > 50
    for place, element in enumerate(D4.elements):
        wanted = act_on_fields(D4, place, torch.from_numpy(upright), Fields(regular=narrow.head // 8))
        np.testing.assert_array_equal(run(session, act(element, image)), wanted.numpy())


def test_scales_are_shared_by_each_orbit(integers: onnx.ModelProto) -> None:
    """Also where a deconvolution has its s x s phases as channels: an element turns those along with the image."""
    phased = 0
    for bank, scale in banks(integers).values():
        side = {64: 2, 256: 4, 1024: 8}.get(len(scale), 1) if bank.shape[2:] == (2, 2) else 1
        orbits = scale.reshape(-1, 8, side, side)
        for element in D4.elements:
            np.testing.assert_array_equal(orbits[:, element], act(element, orbits[:, 0]))
        phased += side > 1
        assert len(np.unique(scale)) > 1 or bank.shape[1] == 1
    assert phased == 3


def test_no_pair_of_products_leaves_16_bits(integers: onnx.ModelProto) -> None:
    largest = max(int(np.abs(bank.astype(np.int64)).max()) for bank, _ in banks(integers).values())
    assert largest == 64
    assert 2 * largest * 255 < 2**15


def test_all_but_the_head_is_computed_in_integers(integers: onnx.ModelProto, tmp_path: Path) -> None:
    session_of(integers, tmp_path / "optimised.onnx")
    operators = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    head = 3  # the 1x1 layer, and the logit's two halves: of maxima, and of means
    assert operators["QLinearConv"] == sum(node.op_type == "Conv" for node in integers.graph.node) - head
    assert not operators["AveragePool"] + operators["QLinearAveragePool"]


def test_the_map_is_near_that_of_the_float_graph(integers: onnx.ModelProto, whole: onnx.ModelProto) -> None:
    image = noise(5, 8, 8)
    found, wanted = run(session_of(integers), image), run(session_of(whole), image)
    assert np.abs(found - wanted).mean() < 0.1 * wanted.std()
    assert np.corrcoef(found.ravel(), wanted.ravel())[0, 1] > 0.99


@pytest.mark.parametrize("symmetry", ["plain", "paper"])
def test_other_networks_are_quantised_too(symmetry: str, narrow: SegmenterSpec, exported: MakeGraph) -> None:
    whole = exported(replace(narrow, symmetry=symmetry))  # type: ignore[arg-type]
    found = quantise(whole, [noise(1, 8, 8)])
    image = noise(5, 4, 4)
    maps = [run(session_of(model), image).ravel() for model in (found, whole)]
    assert np.corrcoef(*maps)[0, 1] > 0.99


def test_a_graph_stored_in_half_is_quantised_like_the_whole_one(whole: onnx.ModelProto) -> None:
    found = quantise(store_in_half(whole), [noise(1, 8, 8)])
    assert len(banks(found)) == len(banks(quantise(whole, [noise(1, 8, 8)])))


def test_the_graph_that_is_given_stays_as_it_is(whole: onnx.ModelProto) -> None:
    before = whole.SerializeToString(deterministic=True)
    quantise(whole, [noise(1, 1, 1)])
    assert whole.SerializeToString(deterministic=True) == before


def test_quantising_needs_images(whole: onnx.ModelProto) -> None:
    with pytest.raises(ValueError, match=r"^images is empty; the ranges of maps are measured on them: give some"):
        quantise(whole, [])
