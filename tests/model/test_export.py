import hashlib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from emboundary.model import export as export_module
from emboundary.model.description import METADATA_KEY, ModelDescription, Storage, TrainingData, Validation
from emboundary.model.export import PLAIN_OPERATORS, ExportError, build_onnx, export_model
from emboundary.model.folding import expand_and_fold
from emboundary.model.footprint import count_parameters, flops_per_pixel, receptive_field
from emboundary.model.groups import D4, act, inverse_element
from emboundary.model.inception import STRIDE, Segmenter, SegmenterSpec, Symmetry
from emboundary.model.parity import measure_parity
from emboundary.model.repository import load_model
from emboundary.model.weights import load_segmenter

MakeNetwork = Callable[[SegmenterSpec], Segmenter]
MakeGraph = Callable[[SegmenterSpec], onnx.ModelProto]

EVERY_SYMMETRY = pytest.mark.parametrize("symmetry", ["plain", "paper", "d4"])
SIZES = [(1, 1, 1), (2, 7, 3), (3, 5, 12)]


def publish(net: Segmenter, folder: Path, storage: Storage = "float32") -> ModelDescription:
    return export_model(
        net,
        folder,
        name="d4",
        version="1",
        summary="A network for this test.",
        voxel_sizes_nm=[(50.0, 4.6, 4.6)],
        training=[TrainingData(name="vnc", sections="0:13", citation="someone")],
        validation=[Validation(protocol="none", roc_auc=0.5, average_precision=0.25)],
        weights_licence="CC0-1.0",
        storage=storage,
    )


@pytest.fixture(scope="module")
def published(network: MakeNetwork, narrow: SegmenterSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository") / "d4" / "1"
    publish(network(replace(narrow, symmetry="d4")), folder)
    return folder


def run(model: bytes, image: NDArray[np.float32]) -> NDArray[np.float32]:
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["probability"], {"image": image})[0])


@EVERY_SYMMETRY
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_graph_is_the_network_at_every_size_and_orientation(
    symmetry: Symmetry, size: tuple[int, int, int], network: MakeNetwork, narrow: SegmenterSpec, exported: MakeGraph
) -> None:
    spec = replace(narrow, symmetry=symmetry)
    net, model = network(spec), exported(spec).SerializeToString()
    batch, rows, columns = size
    image = np.random.default_rng(5).standard_normal((batch, 1, rows * STRIDE, columns * STRIDE), dtype=np.float32)
    for element in D4.elements:
        turned = np.ascontiguousarray(act(element, image))
        with torch.no_grad():
            wanted = torch.sigmoid(net(torch.from_numpy(turned))).numpy()
        np.testing.assert_allclose(run(model, turned), wanted, rtol=0, atol=1e-5)


@EVERY_SYMMETRY
def test_the_file_of_d4_alone_commutes_with_rotations_and_flips(
    symmetry: Symmetry, exported: MakeGraph, narrow: SegmenterSpec
) -> None:
    model = exported(replace(narrow, symmetry=symmetry)).SerializeToString()
    image = np.random.default_rng(6).standard_normal((1, 1, 5 * STRIDE, 8 * STRIDE), dtype=np.float32)
    upright = run(model, image)
    turned = [act(inverse_element(e), run(model, np.ascontiguousarray(act(e, image)))) for e in D4.elements]
    error = max(np.abs(t - upright).max() for t in turned)
    assert error < 1e-5 if symmetry == "d4" else error > 0.01


@EVERY_SYMMETRY
def test_the_graph_is_a_plain_cnn(
    symmetry: Symmetry, network: MakeNetwork, narrow: SegmenterSpec, exported: MakeGraph
) -> None:
    spec = replace(narrow, symmetry=symmetry)
    graph = exported(spec).graph
    operators = Counter(node.op_type for node in graph.node)
    assert set(operators) <= PLAIN_OPERATORS
    # one convolution for each that was trained, and one more for the join of d4, whose channels fill no blocks
    trained = sum(isinstance(m, nn.Conv2d | nn.ConvTranspose2d) for m in expand_and_fold(network(spec)).modules())
    assert operators["Conv"] == trained + (symmetry == "d4")
    assert operators["Unsqueeze"] == operators["Squeeze"] == {"plain": 0, "paper": 2, "d4": 2}[symmetry]
    assert operators["Sigmoid"] == 1


def test_inputs_and_outputs_are_those_of_the_contract(exported: MakeGraph, narrow: SegmenterSpec) -> None:
    model = exported(replace(narrow, symmetry="d4"))
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 20)]
    for value, name in ((model.graph.input, "image"), (model.graph.output, "probability")):
        (tensor,) = value
        extents = [d.dim_param or d.dim_value for d in tensor.type.tensor_type.shape.dim]
        assert (tensor.name, extents) == (name, ["n", 1, "y", "x"])
        assert tensor.type.tensor_type.elem_type == onnx.TensorProto.FLOAT


def test_the_file_says_nothing_of_the_machine_that_wrote_it(published: Path) -> None:
    content = (published / "model.onnx").read_bytes()
    for trace in (b"site-packages", b'File "', b"pkg.torch", str(Path.home()).encode(), str(Path.cwd()).encode()):
        assert trace not in content, trace


def test_a_published_folder_is_a_model_of_the_repository(published: Path) -> None:
    assert {p.name for p in published.iterdir()} == {"model.onnx", "description.json", "weights.safetensors", "CARD.md"}
    assert [p.name for p in published.parent.iterdir()] == ["1"]
    assert load_model("d4", published.parents[1]).path == published / "model.onnx"


def test_the_description_is_computed(published: Path, network: MakeNetwork, narrow: SegmenterSpec) -> None:
    net = network(replace(narrow, symmetry="d4"))
    description = load_model(published).description
    model = onnx.load(published / "model.onnx")
    field = receptive_field(model)
    assert description.parameters == count_parameters(net)
    assert description.flops_per_pixel == flops_per_pixel(expand_and_fold(net), STRIDE)
    assert description.stride == (1, STRIDE, STRIDE) == (1, field.stride, field.stride)
    assert description.receptive_field_radius == (0, field.radius, field.radius)
    assert description.halo == (0, field.halo, field.halo)
    assert description.symmetry.group == "D4"
    assert description.symmetry.error == measure_parity(net, (published / "model.onnx").read_bytes()).symmetry_error
    assert description.opset == 20
    assert description.precisions == {"float32": 1e-5}
    assert description.storage == "float32"


@pytest.mark.usefixtures("stored_graph")
def test_a_file_stored_in_half_states_its_distance_from_the_network(
    published: Path, network: MakeNetwork, narrow: SegmenterSpec, tmp_path: Path
) -> None:
    net = network(replace(narrow, symmetry="d4"))
    folder = tmp_path / "d4" / "1"
    publish(net, folder, "float16")
    described, whole = load_model(folder).description, load_model(published).description
    assert described.storage == "float16"
    different = {key for key, value in described if value != getattr(whole, key)}
    assert different - {"symmetry"} == {"storage", "precisions", "sha256"}
    measured = measure_parity(net, (folder / "model.onnx").read_bytes())
    assert 1e-5 < measured.torch_difference <= described.precisions["float32"] < 2 * measured.torch_difference
    assert described.symmetry.error == measured.symmetry_error < 1e-5
    assert (folder / "model.onnx").stat().st_size < 0.62 * (published / "model.onnx").stat().st_size


@pytest.mark.usefixtures("stored_graph")
def test_weights_that_half_does_not_suit_are_not_published_in_it(
    network: MakeNetwork, narrow: SegmenterSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = network(replace(narrow, symmetry="plain"))
    monkeypatch.setattr(export_module, "HALF_TOLERANCE", 2e-5)
    with pytest.raises(
        ExportError, match=r"in probability; at most 2e-05 may be published: store the weights as float32$"
    ):
        publish(net, tmp_path / "plain" / "1", "float16")
    assert not left_behind(tmp_path)


@EVERY_SYMMETRY
def test_a_network_with_context_is_published_like_any_other(
    symmetry: Symmetry, network: MakeNetwork, narrow: SegmenterSpec, tmp_path: Path
) -> None:
    """Its image has a channel for each section; the file is held to the network and its symmetry is measured."""
    alone, amid = replace(narrow, symmetry=symmetry), replace(narrow, symmetry=symmetry, context=2)
    folder = tmp_path / "d4" / "1"
    described = publish(network(amid), folder)
    model = onnx.load(folder / "model.onnx")
    extents = [d.dim_param or d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    assert extents == ["n", 5, "y", "x"]
    radius = receptive_field(model).radius
    assert described.receptive_field_radius == (2, radius, radius)
    assert described.halo == (2, STRIDE * -(-radius // STRIDE), STRIDE * -(-radius // STRIDE))
    assert described.stride == (1, STRIDE, STRIDE)
    assert load_segmenter(folder / "weights.safetensors").spec == amid
    assert "the channels are sections z - 2 to z + 2" in (folder / "CARD.md").read_text()
    # each filter of the first layer has four further 3x3 kernels, a multiplication and an addition for each tap
    copies = {"plain": 1, "paper": 4, "d4": 1}[symmetry]
    more = described.flops_per_pixel - flops_per_pixel(expand_and_fold(network(alone)), STRIDE)
    assert more == amid.stem * copies * 4 * 9 * 2
    image = np.random.default_rng(8).standard_normal((2, 5, 4 * STRIDE, 6 * STRIDE), dtype=np.float32)
    content = (folder / "model.onnx").read_bytes()
    upright = run(content, image)
    errors = []
    for element in D4.elements:
        turned = np.ascontiguousarray(act(element, image))
        found = run(content, turned)
        with torch.no_grad():
            wanted = torch.sigmoid(network(amid)(torch.from_numpy(turned))).numpy()
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
        errors.append(np.abs(act(inverse_element(element), found) - upright).max())
    assert max(errors) < 1e-5 if symmetry == "d4" else max(errors) > 0.01
    assert described.symmetry.error < 1e-5 if symmetry == "d4" else described.symmetry.error > 0.01


def test_a_file_copied_alone_still_says_what_it_is(published: Path) -> None:
    beside = json.loads((published / "description.json").read_text())
    (inside,) = [p.value for p in onnx.load(published / "model.onnx").metadata_props if p.key == METADATA_KEY]
    assert beside["sha256"] == hashlib.sha256((published / "model.onnx").read_bytes()).hexdigest()
    assert json.loads(inside) == beside | {"sha256": None}
    assert ModelDescription.model_validate_json(inside).sha256 is None


def test_exporting_the_stored_weights_again_gives_the_same_bytes(published: Path, tmp_path: Path) -> None:
    publish(load_segmenter(published / "weights.safetensors"), tmp_path / "again")
    for name in ("model.onnx", "description.json", "CARD.md"):
        assert (tmp_path / "again" / name).read_bytes() == (published / name).read_bytes(), name


def test_the_card_states_the_description(published: Path) -> None:
    card, description = (published / "CARD.md").read_text(), load_model(published).description
    for stated in (
        "# d4, version 1",
        description.summary,
        f"{description.parameters:,}",
        str(description.halo),
        str(description.sha256),
        "CC0-1.0",
        "- vnc, 0:13. someone",
        "| none | 0.50000 | 0.2500 |",
        "50 x 4.6 x 4.6",
    ):
        assert stated in card, stated


@pytest.fixture
def stored_graph(monkeypatch: pytest.MonkeyPatch, exported: MakeGraph) -> None:
    """Spare the tests of refusals the tracing of the network."""

    def copy_of(net: Segmenter) -> onnx.ModelProto:
        model = onnx.ModelProto()
        model.CopyFrom(exported(net.spec))
        return model

    monkeypatch.setattr(export_module, "build_onnx", copy_of)


def left_behind(folder: Path) -> list[str]:
    return [p.name for p in folder.rglob("*") if p.is_file()]


@pytest.mark.usefixtures("stored_graph")
def test_a_file_that_differs_from_its_network_is_not_published(
    network: MakeNetwork, narrow: SegmenterSpec, tmp_path: Path
) -> None:
    net = load_changed(network(replace(narrow, symmetry="plain")), 1.01)
    with pytest.raises(
        ExportError, match=r"^the exported file differs from the network by .* in probability; at most 1e"
    ):
        publish(net, tmp_path / "plain" / "1")
    assert not left_behind(tmp_path)


@pytest.mark.usefixtures("stored_graph")
def test_a_network_that_gives_no_numbers_is_not_published(
    network: MakeNetwork, narrow: SegmenterSpec, tmp_path: Path
) -> None:
    net = load_changed(network(replace(narrow, symmetry="plain")), float("nan"))
    with pytest.raises(ExportError, match=r"^the exported file differs from the network by inf in probability"):
        publish(net, tmp_path / "plain" / "1")
    assert not left_behind(tmp_path)


def load_changed(net: Segmenter, factor: float) -> Segmenter:
    changed = Segmenter(net.spec)
    changed.load_state_dict({k: v * factor if v.is_floating_point() else v for k, v in net.state_dict().items()})
    return changed


def test_a_d4_network_that_is_not_symmetric_is_not_published(
    network: MakeNetwork, narrow: SegmenterSpec, exported: MakeGraph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = replace(narrow, symmetry="plain")
    net = Segmenter(spec)
    net.load_state_dict(network(spec).state_dict())
    net.spec = replace(spec, symmetry="d4")
    monkeypatch.setattr(export_module, "build_onnx", lambda _: exported(spec))
    with pytest.raises(ExportError, match=r"^the D4 network violates its symmetry by .* in probability; at most 1e-05"):
        publish(net, tmp_path / "d4" / "1")
    assert not left_behind(tmp_path)


@pytest.mark.usefixtures("stored_graph")
def test_a_published_model_is_not_overwritten(network: MakeNetwork, narrow: SegmenterSpec, tmp_path: Path) -> None:
    with pytest.raises(
        ExportError, match=r"exists; published models do not change: give another version or remove it$"
    ):
        publish(network(replace(narrow, symmetry="plain")), tmp_path)


@pytest.mark.usefixtures("stored_graph")
def test_an_export_that_fails_half_way_leaves_nothing(
    network: MakeNetwork, narrow: SegmenterSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(_: ModelDescription) -> str:
        raise OSError("no space left on device")

    monkeypatch.setattr(export_module, "render_card", no_space)
    with pytest.raises(OSError, match="no space left"):
        publish(network(replace(narrow, symmetry="plain")), tmp_path / "plain" / "1")
    assert not left_behind(tmp_path)


@pytest.mark.usefixtures("stored_graph")
def test_remains_of_a_killed_export_do_not_stand_in_the_way(
    network: MakeNetwork, narrow: SegmenterSpec, tmp_path: Path
) -> None:
    remains = tmp_path / "plain" / "1.partial"
    remains.mkdir(parents=True)
    (remains / "model.onnx").write_bytes(b"half")
    publish(network(replace(narrow, symmetry="plain")), tmp_path / "plain" / "1")
    assert [p.name for p in (tmp_path / "plain").iterdir()] == ["1"]


def test_a_graph_that_is_not_plain_is_refused(
    network: MakeNetwork, narrow: SegmenterSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign = ir.from_onnx_text("""
        <ir_version: 10, opset_import: ["" : 20]>
        g (float[n, 1, y, x] image) => (float[n, 1, y, x] probability) { probability = HardSigmoid(image) }
    """)
    monkeypatch.setattr(export_module, "_trace", lambda *_: foreign)
    with pytest.raises(ExportError, match=r"^the graph holds \['HardSigmoid'\]; a plain CNN has only \['Add', 'Aver"):
        build_onnx(network(replace(narrow, symmetry="plain")))
