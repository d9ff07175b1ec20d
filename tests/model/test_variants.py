import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from emboundary.model import variants as module
from emboundary.model.card import Making, render_card
from emboundary.model.description import METADATA_KEY, PRECISION_KEY, ModelDescription, Precision, TrainingData
from emboundary.model.export import export_model
from emboundary.model.half import imitate
from emboundary.model.inception import STRIDE, Segmenter, SegmenterSpec
from emboundary.model.parity import Reference
from emboundary.model.repository import ModelError, list_models, load_model
from emboundary.model.variants import Samples, VariantError, add_variants
from emboundary.model.weights import load_segmenter

MakeNetwork = Callable[[SegmenterSpec], Segmenter]
FILES = {"CARD.md", "description.json", "float16.onnx", "int8.onnx", "model.onnx", "weights.safetensors"}
MADE = Making(config='{"steps": 1}', fails="Where sections are folded.")


def images(seed: int, channels: int = 1) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(seed).standard_normal((1, channels, 6 * STRIDE, 5 * STRIDE), dtype=np.float32)


SAMPLES = Samples(calibration=(images(1), images(2)), probes=(images(3),))


@pytest.fixture(scope="module")
def exported_once(network: MakeNetwork, narrow: SegmenterSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published model in float32 alone, with a card that says more than its description."""
    folder = tmp_path_factory.mktemp("plain") / "own" / "1"
    described = export_model(
        network(replace(narrow, symmetry="d4")),
        folder,
        name="own",
        version="1",
        summary="For this test.",
        voxel_sizes_nm=[(50.0, 4.6, 4.6)],
        training=[TrainingData(name="vnc", sections="0:13", citation="someone")],
        validation=[],
        weights_licence="CC0-1.0",
    )
    (folder / "CARD.md").write_text(render_card(described, MADE), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def converted_once(exported_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("converted") / "own" / "1"
    shutil.copytree(exported_once, folder)
    add_variants(folder, ("float16", "int8"), SAMPLES)
    return folder


@pytest.fixture
def exported(exported_once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported_once, tmp_path / "own" / "1"))


@pytest.fixture
def converted(converted_once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(converted_once, tmp_path / "own" / "1"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def properties(path: Path) -> dict[str, str]:
    return {p.key: p.value for p in onnx.load(path).metadata_props}


def test_a_converted_model_is_one_folder_whose_files_know_each_other(converted: Path) -> None:
    assert {path.name for path in converted.iterdir()} == FILES
    assert list_models(converted.parents[1]) == ("own",)
    entry = load_model(converted)
    precisions: tuple[Precision, ...] = ("float32", "float16", "int8")
    for precision in precisions:
        inside = properties(entry.file(precision))
        assert ModelDescription.model_validate_json(inside[METADATA_KEY]) == entry.description.embedded()
        assert inside.get(PRECISION_KEY) == (None if precision == "float32" else precision)
    assert set(entry.description.precisions) == set(precisions)
    assert set(entry.description.variants) == {"float16", "int8"}
    sizes = {name: (converted / name).stat().st_size for name in FILES}
    assert sizes["int8.onnx"] < sizes["float16.onnx"] < 0.7 * sizes["model.onnx"]


def test_only_what_belongs_to_the_variants_has_changed(converted: Path, exported_once: Path) -> None:
    after, before = load_model(converted).description, load_model(exported_once).description
    changed = {key for key, value in after if value != getattr(before, key)}
    assert changed == {"precisions", "variants", "sha256"}
    assert after.precisions["float32"] == before.precisions["float32"]
    graphs = [onnx.load(folder / "model.onnx").graph.SerializeToString() for folder in (converted, exported_once)]
    assert graphs[0] == graphs[1]
    weights = [(folder / "weights.safetensors").read_bytes() for folder in (converted, exported_once)]
    assert weights[0] == weights[1]


def test_tolerance_and_symmetry_are_those_that_are_measured(converted: Path) -> None:
    """Twice what the probes show, in all orientations; float16 both as GPUs round and as the file runs here."""
    described = load_model(converted).description
    reference = Reference(load_segmenter(converted / "weights.safetensors").eval(), SAMPLES.probes)
    half = onnx.load(converted / "float16.onnx")
    found = [reference.compare(m.SerializeToString()) for m in (half, imitate(half))]
    largest = max(p.torch_difference for p in found)
    assert 1e-5 < 2 * largest <= described.precisions["float16"] < 4 * largest < 4e-2
    violation = described.variants["float16"].symmetry_error
    assert violation == max(p.symmetry_error for p in found)
    assert violation <= 2 * described.precisions["float16"]
    integers = reference.compare((converted / "int8.onnx").read_bytes())
    assert 2 * integers.torch_difference <= described.precisions["int8"] < 4 * integers.torch_difference
    assert described.variants["int8"].symmetry_error == integers.symmetry_error < 1e-5


def test_the_card_says_it_and_keeps_what_else_was_said(converted: Path) -> None:
    card, described = (converted / "CARD.md").read_text(encoding="utf-8"), load_model(converted).description
    assert card == render_card(described, MADE)
    assert f"| float16 | `float16.onnx` | {described.precisions['float16']:g} |" in card
    assert described.variants["int8"].sha256 in card
    assert "## Where it fails\n\nWhere sections are folded.\n" in card


def test_one_after_the_other_is_the_same_as_both_at_once(exported: Path, converted_once: Path) -> None:
    add_variants(exported, ["float16"], SAMPLES)
    assert "int8.onnx" not in contents(exported)
    add_variants(exported, ["int8"], SAMPLES)
    assert contents(exported) == contents(converted_once)


def test_what_is_there_is_made_again_only_if_that_is_asked_for(converted: Path) -> None:
    before = contents(converted)
    with pytest.raises(VariantError, match=r"has float16 already; --overwrite makes it again, and changes the hashes"):
        add_variants(converted, ["float16"], SAMPLES)
    assert contents(converted) == before
    (converted / "float16.onnx").write_bytes(b"damaged")
    described = add_variants(converted, ["float16"], SAMPLES, overwrite=True)
    assert contents(converted) == before
    assert described == load_model(converted).description


def test_a_variant_that_stays_must_be_whole(converted: Path) -> None:
    (converted / "float16.onnx").write_bytes(b"damaged")
    with pytest.raises(ModelError, match=r"float16\.onnx has SHA-256"):
        add_variants(converted, ["int8"], SAMPLES, overwrite=True)


@pytest.mark.parametrize("name", ["model.onnx", "float16.onnx", "CARD.md"])
def test_a_conversion_that_fails_half_way_changes_nothing(
    exported: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    before, write = contents(exported), Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if path.name == name:
            raise OSError("no space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="no space left"):
        add_variants(exported, ["float16"], SAMPLES)
    monkeypatch.undo()
    assert contents(exported) == before
    assert [path.name for path in exported.parent.iterdir()] == ["1"]


def test_a_folder_that_cannot_take_its_place_leaves_the_old_one(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, rename = contents(exported), Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if path.name == "1.new":
            raise OSError("not permitted")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match="not permitted"):
        add_variants(exported, ["float16"], SAMPLES)
    assert contents(exported) == before
    assert [path.name for path in exported.parent.iterdir()] == ["1"]


def test_a_conversion_that_was_killed_between_its_renamings_is_taken_up(exported: Path) -> None:
    exported.rename(exported.with_name("1.replaced"))
    exported.with_name("1.new").mkdir()
    add_variants(exported, ["float16"], SAMPLES)
    assert "float16" in load_model(exported).description.variants
    assert [path.name for path in exported.parent.iterdir()] == ["1"]


def test_a_card_that_was_changed_by_hand_is_not_overwritten(exported: Path) -> None:
    (exported / "CARD.md").write_text("My own words.\n", encoding="utf-8")
    before = contents(exported)
    with pytest.raises(
        VariantError, match=r"CARD\.md does not begin with what description\.json says, so that it cann"
    ):
        add_variants(exported, ["float16"], SAMPLES)
    assert contents(exported) == before
    (exported / "CARD.md").unlink()
    described = add_variants(exported, ["float16"], SAMPLES)
    assert (exported / "CARD.md").read_text(encoding="utf-8") == render_card(described)


def test_what_cannot_be_made_is_refused(exported: Path) -> None:
    before = contents(exported)
    with pytest.raises(
        VariantError, match=r"^int8 needs images: the ranges of its maps are measured on them; give som"
    ):
        add_variants(exported, ["int8"], replace(SAMPLES, calibration=()))
    with pytest.raises(VariantError, match=r"^no images to measure the variants on"):
        add_variants(exported, ["float16"], replace(SAMPLES, probes=()))
    with pytest.raises(ValueError, match=r"^precision is 'float32'; a variant is one of \('float16', 'int8'\)$"):
        add_variants(exported, ["float32"], SAMPLES)
    assert contents(exported) == before


def test_a_precision_that_does_not_suit_the_network_is_refused(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HALF_TOLERANCE", 1e-6)
    with pytest.raises(
        VariantError, match=r"^float16 does not suit this network: it changes probabilities by .*, and at"
    ):
        add_variants(exported, ["float16"], SAMPLES)
    monkeypatch.setattr(module, "TOLERANCE", -1.0)
    with pytest.raises(
        VariantError, match=r"^int8 violates the symmetry of this network by .* in probability; at most"
    ):
        add_variants(exported, ["int8"], SAMPLES)
    monkeypatch.setattr(module, "to_half", lambda _: (_ for _ in ()).throw(ValueError("maps reach 1e+09")))
    with pytest.raises(VariantError, match=r"^float16 does not suit this network: maps reach 1e\+09$"):
        add_variants(exported, ["float16"], SAMPLES)


@pytest.mark.parametrize("symmetry", ["plain", "paper"])
def test_networks_without_an_exact_symmetry_and_with_context_have_variants_too(
    symmetry: str, network: MakeNetwork, narrow: SegmenterSpec, tmp_path: Path
) -> None:
    spec = replace(narrow, symmetry=symmetry, context=1)  # type: ignore[arg-type]
    folder, torch_net = tmp_path / "deep" / "1", network(spec)
    export_model(
        torch_net,
        folder,
        name="deep",
        version="1",
        summary="For this test.",
        voxel_sizes_nm=[],
        training=[],
        validation=[],
        weights_licence="CC0-1.0",
        storage="float16",
    )
    samples = Samples(calibration=(images(1, 3),), probes=(images(2, 3),))
    described = add_variants(folder, ("float16", "int8"), samples)
    assert described.storage == "float16"
    assert described.variants["float16"].symmetry_error > 0.01
    with torch.no_grad():
        wanted = torch.sigmoid(torch_net(torch.from_numpy(images(2, 3)))).numpy()
    for precision in ("float16", "int8"):
        session = ort.InferenceSession(str(folder / f"{precision}.onnx"), providers=["CPUExecutionProvider"])
        found = session.run(None, {"image": images(2, 3)})[0]
        assert np.abs(found - wanted).max() <= described.precisions[precision]
