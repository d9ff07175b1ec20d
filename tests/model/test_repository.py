import hashlib
import json
from pathlib import Path

import pytest

from emboundary.model.description import Precision
from emboundary.model.repository import ModelError, list_models, list_versions, load_model, load_version


def publish(repository: Path, name: str, version: str, content: bytes = b"graph", **changes: object) -> Path:
    folder = repository / name / version
    folder.mkdir(parents=True)
    description = {
        "name": name,
        "version": version,
        "summary": "One line.",
        "input": {"name": "image"},
        "output": {"name": "probability"},
        "opset": 20,
        "trained_voxel_sizes_nm": [],
        "receptive_field_radius": [0, 43, 43],
        "halo": [0, 48, 48],
        "stride": [1, 8, 8],
        "symmetry": {"group": "C1", "error": 0.5},
        "precisions": {"float32": 1e-5},
        "training": [],
        "weights_licence": "none",
        "parameters": 1,
        "flops_per_pixel": 1.0,
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    (folder / "model.onnx").write_bytes(content)
    (folder / "description.json").write_text(json.dumps(description | changes))
    return folder


def test_the_default_model_is_listed_first(tmp_path: Path) -> None:
    for name in ("plain", "d4", "beta"):
        publish(tmp_path, name, "1")
    assert list_models(tmp_path) == ("d4", "beta", "plain")


def test_a_half_written_version_is_not_listed(tmp_path: Path) -> None:
    publish(tmp_path, "d4", "1.partial")
    assert list_models(tmp_path) == ()


def test_the_newest_version_is_the_highest_number(tmp_path: Path) -> None:
    for version in ("2", "10", "9"):
        publish(tmp_path, "d4", version, content=version.encode())
    assert load_model("d4", tmp_path).description.version == "10"


def test_a_model_is_found_by_name_file_folder_and_version(tmp_path: Path) -> None:
    folder = publish(tmp_path, "own", "1")
    found = [load_model("own", tmp_path), *(load_model(p) for p in (folder / "model.onnx", folder, folder.parent))]
    found += [load_model(str(folder)), load_model(str(folder / "model.onnx"))]
    assert {entry.path for entry in found} == {folder / "model.onnx"}
    assert {entry.description.name for entry in found} == {"own"}


def test_a_folder_that_happens_to_bear_a_model_s_name_does_not_hide_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = publish(tmp_path / "zoo", "d4", "1")
    (tmp_path / "work" / "d4").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")
    assert load_model("d4", tmp_path / "zoo").path == folder / "model.onnx"


@pytest.mark.parametrize("name", ["d4", "plain", "paper"])
def test_the_small_size_is_meant_where_none_is_named_and_is_listed_once(tmp_path: Path, name: str) -> None:
    folder = publish(tmp_path, name, "1")
    publish(tmp_path, f"{name}-base", "1")
    assert load_model(f"{name}-small", tmp_path) == load_model(name, tmp_path)
    assert load_version(f"{name}-small", "1", tmp_path).path == folder / "model.onnx"
    assert list_versions(f"{name}-small", tmp_path) == ("1",)
    assert load_model(f"{name}-base", tmp_path).description.name == f"{name}-base"
    assert list_models(tmp_path) == (name, f"{name}-base")


def test_a_model_that_is_stored_under_the_long_name_is_found_there(tmp_path: Path) -> None:
    for name in ("d4", "d4-small"):
        publish(tmp_path, name, "1")
    assert load_model("d4-small", tmp_path).description.name == "d4-small"
    assert load_model("d4", tmp_path).description.name == "d4"


def test_other_names_have_no_small_size(tmp_path: Path) -> None:
    publish(tmp_path, "own", "1")
    with pytest.raises(ModelError, match=r"^model 'own-small' not found; give a name \(here: own\)"):
        load_model("own-small", tmp_path)
    assert list_versions("own-small", tmp_path) == ()


@pytest.mark.parametrize("name", ["d5", "", "..", "no/such/path"])
def test_an_unknown_model_is_refused_with_the_known_ones(tmp_path: Path, name: str) -> None:
    publish(tmp_path, "d4", "1")
    publish(tmp_path, "plain", "1")
    with pytest.raises(ModelError, match=rf"^model {name!r} not found; give a name \(here: d4, plain\) or the path"):
        load_model(name, tmp_path)


def test_an_empty_repository_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"give a name \(here: none\)"):
        load_model("d4", tmp_path)


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    folder = publish(tmp_path, "d4", "1")
    (folder / "model.onnx").write_bytes(b"grapf")
    found, stated = hashlib.sha256(b"grapf").hexdigest()[:12], hashlib.sha256(b"graph").hexdigest()[:12]
    with pytest.raises(ModelError, match=rf"has SHA-256 {found}\.\.\., its description says {stated}\.\.\.; the"):
        load_model("d4", tmp_path)


def test_a_description_without_a_hash_is_refused(tmp_path: Path) -> None:
    publish(tmp_path, "d4", "1", sha256=None)
    with pytest.raises(ModelError, match=r"its description says None"):
        load_model("d4", tmp_path)


@pytest.mark.parametrize("missing", ["model.onnx", "description.json"])
def test_a_missing_half_is_refused(tmp_path: Path, missing: str) -> None:
    folder = publish(tmp_path, "d4", "1")
    (folder / missing).unlink()
    with pytest.raises(ModelError, match=rf"{missing} is missing; a model needs both model.onnx and description.json"):
        load_model(folder / "model.onnx")


def test_a_name_without_a_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "d4").mkdir()
    with pytest.raises(ModelError, match=r"holds no VERSION/model.onnx; a model is a folder NAME/VERSION/model.onnx$"):
        load_model("d4", tmp_path)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("", "the document: Invalid JSON"), ("{}", "name: Field required"), ("[1]", "the document: Input should be")],
)
def test_an_invalid_description_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    folder = publish(tmp_path, "d4", "1")
    (folder / "description.json").write_text(text)
    with pytest.raises(ModelError, match=rf"description.json is not a valid description: {complaint}"):
        load_model("d4", tmp_path)


def test_an_unknown_field_is_named(tmp_path: Path) -> None:
    publish(tmp_path, "d4", "1", colour="red")
    with pytest.raises(ModelError, match=r"not a valid description: colour: Extra inputs are not permitted"):
        load_model("d4", tmp_path)


def publish_with_half(repository: Path, content: bytes = b"half") -> Path:
    variant = {"file": "float16.onnx", "sha256": hashlib.sha256(content).hexdigest(), "symmetry_error": 0.5}
    folder = publish(
        repository, "d4", "1", variants={"float16": variant}, precisions={"float32": 1e-5, "float16": 0.002}
    )
    (folder / "float16.onnx").write_bytes(content)
    return folder


def test_each_precision_has_its_file(tmp_path: Path) -> None:
    folder = publish_with_half(tmp_path)
    entry = load_model("d4", tmp_path)
    assert entry.file("float32") == entry.path == folder / "model.onnx"
    assert entry.file("float16") == folder / "float16.onnx"
    assert list_models(tmp_path) == ("d4",)


@pytest.mark.parametrize("precision", ["int8", "float64"])
def test_a_precision_that_is_not_offered_is_refused_with_those_that_are(tmp_path: Path, precision: Precision) -> None:
    publish_with_half(tmp_path)
    with pytest.raises(
        ModelError, match=rf"^model d4 is not offered in '{precision}', only in: float32, float16; `emboundary-train c"
    ):
        load_model("d4", tmp_path).file(precision)


def test_a_missing_variant_is_refused_when_it_is_asked_for(tmp_path: Path) -> None:
    folder = publish_with_half(tmp_path)
    (folder / "float16.onnx").unlink()
    entry = load_model("d4", tmp_path)
    assert entry.file("float32").is_file()
    with pytest.raises(
        ModelError,
        match=r"float16\.onnx is missing, though description\.json names it: .* --overwrite` makes it again$",
    ):
        entry.file("float16")


def test_a_changed_variant_is_refused(tmp_path: Path) -> None:
    folder = publish_with_half(tmp_path)
    (folder / "float16.onnx").write_bytes(b"hald")
    with pytest.raises(
        ModelError, match=r"float16\.onnx has SHA-256 .*, its description says .*: copy the whole folder"
    ):
        load_model("d4", tmp_path).file("float16")


@pytest.mark.parametrize("name", ["d4", "plain", "paper"])
def test_the_bundled_models_are_whole_in_every_precision(name: str) -> None:
    entry = load_model(name)
    precisions: tuple[Precision, ...] = ("float32", "float16", "int8")
    assert tuple(entry.description.precisions) == precisions
    assert [entry.file(precision).name for precision in precisions] == ["model.onnx", "float16.onnx", "int8.onnx"]
    assert entry.description.precisions["float16"] <= 2 * 5e-3  # twice what was measured
    if entry.description.symmetry.group == "D4":
        assert entry.description.variants["int8"].symmetry_error < 1e-5
        assert entry.description.variants["float16"].symmetry_error <= 2 * entry.description.precisions["float16"]
