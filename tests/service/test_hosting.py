"""Models exchanged while they are served."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import onnx
import pytest

from emboundary.model.description import METADATA_KEY
from emboundary.service.errors import ModelUnavailableError
from emboundary.service.hosting import Models
from emboundary.service.refusal import RequestError
from emboundary.service.settings import Settings


@pytest.fixture
def folder(repository: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(repository, tmp_path / "repository"))


def serve(folder: Path, **more: object) -> Models:
    return Models(Settings(repository=folder, device="cpu", **more))  # type: ignore[arg-type]


def add_version(folder: Path, name: str, version: str, like: str = "1") -> Path:
    """A copy of a model that calls itself a version of ``name``, without the right metadata inside."""
    new = Path(shutil.copytree(folder / name / like, folder / name / version))
    card = json.loads((new / "description.json").read_text()) | {"version": version}
    (new / "description.json").write_text(json.dumps(card))
    return new


def rebuild(new: Path) -> None:
    """Make the copy of the description inside a model file say its version, too."""
    model = onnx.load(new / "model.onnx")
    card = json.loads((new / "description.json").read_text())
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {METADATA_KEY: json.dumps(card | {"sha256": None})})
    content = model.SerializeToString()
    (new / "model.onnx").write_bytes(content)
    card["sha256"] = hashlib.sha256(content).hexdigest()
    (new / "description.json").write_text(json.dumps(card))


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def test_a_damaged_model_is_left_out_and_the_rest_is_served(folder: Path) -> None:
    damage(folder / "plain" / "1" / "model.onnx")
    models = serve(folder)
    assert [served.description.name for served in models] == ["d4"]
    ready, refused = models.index()
    assert (ready.name, ready.state, ready.reason) == ("d4", "READY", "")
    assert (refused.name, refused.version, refused.state) == ("plain", "1", "UNAVAILABLE")
    assert "has SHA-256" in refused.reason
    with pytest.raises(RequestError, match="model is 'plain'; served here are d4"):
        models.find("plain")


def test_a_damaged_default_model_stops_the_start(folder: Path) -> None:
    damage(folder / "d4" / "1" / "model.onnx")
    with pytest.raises(ModelUnavailableError, match="changed or damaged"):
        serve(folder)


def test_a_new_version_is_served_when_it_is_loaded_and_the_old_one_by_name(folder: Path) -> None:
    models = serve(folder)
    before = models.find("plain")
    rebuild(add_version(folder, "plain", "2"))
    assert models.find("plain") is before
    models.load("plain")
    assert models.find("plain").description.version == "2"
    assert models.find("plain", "1") is before
    assert [served.description.version for served in models.versions("plain")] == ["2", "1"]
    with pytest.raises(RequestError, match="version of model plain is '3'; served here are 2, 1"):
        models.find("plain", "3")


def test_a_new_version_that_is_wrong_is_refused_and_the_old_one_stays(folder: Path) -> None:
    models = serve(folder)
    before = models.find("plain")
    add_version(folder, "plain", "2")  # the file does not carry this description
    models.load("plain")
    assert models.find("plain") is before
    assert sorted(((e.version, e.state) for e in models.index() if e.name == "plain"), reverse=True) == [
        ("2", "UNAVAILABLE"),
        ("1", "READY"),
    ]


def test_a_model_of_which_nothing_is_right_any_more_is_served_from_memory(folder: Path) -> None:
    models = serve(folder)
    before = models.find("plain")
    damage(folder / "plain" / "1" / "model.onnx")
    with pytest.raises(RequestError, match=r"plain cannot be served \(version 1: .*SHA-256.*what was served before"):
        models.load("plain")
    assert models.find("plain") is before
    (entry,) = (entry for entry in models.index() if entry.name == "plain")
    assert entry.state == "READY"
    assert "SHA-256" in entry.reason


def test_an_unloaded_model_is_gone_for_new_requests_alone(folder: Path) -> None:
    models = serve(folder)
    held = models.find("plain")
    models.unload("plain")
    with pytest.raises(RequestError, match="served here are d4"):
        models.find("plain")
    assert [(e.name, e.state, e.reason) for e in models.index()][1:] == [("plain", "UNAVAILABLE", "unloaded")]
    assert held.engine().description.name == "plain"
    models.load("plain")
    assert models.find("plain").description == held.description


def test_the_default_model_stays(folder: Path) -> None:
    with pytest.raises(RequestError, match="d4 is the default one and stays"):
        serve(folder).unload("d4")


def test_a_model_that_does_not_exist_cannot_be_loaded(folder: Path) -> None:
    for name in ("best", "..", "d4/1", ""):
        with pytest.raises(RequestError, match="the repository holds d4, plain"):
            serve(folder).load(name)


def test_a_folder_that_describes_another_model_is_refused(folder: Path) -> None:
    shutil.copytree(folder / "plain", folder / "impostor")
    (entry,) = (entry for entry in serve(folder).index() if entry.name == "impostor")
    assert "describes itself as plain/1" in entry.reason


def test_a_model_given_by_path_is_the_default_one(folder: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(folder / "plain", tmp_path / "mine"))
    models = serve(folder, model=str(path))
    assert models.default.entry.path == path / "1" / "model.onnx"
    assert [served.description.name for served in models] == ["plain", "d4"]
    models.load("plain")
    assert models.default.entry.path == path / "1" / "model.onnx"


def test_networks_are_prepared_once_before_anybody_sees_them(folder: Path) -> None:
    prepared = []
    models = Models(Settings(repository=folder, device="cpu"), prepare=prepared.append)
    served = models.find("plain")
    assert served.opened is None
    assert served.engine() is served.engine() is served.opened
    assert prepared == [served.opened]
    models.load("plain")
    assert models.find("plain").opened is served.opened
