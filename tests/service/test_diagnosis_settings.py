from __future__ import annotations

import json
import shutil
import socket
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from fastapi import FastAPI

from emboundary.model.description import ModelDescription
from emboundary.service.app import create_app
from emboundary.service.diagnosis import packages
from emboundary.service.diagnosis.access import check_keys, check_port
from emboundary.service.diagnosis.models import check_models
from emboundary.service.diagnosis.packages import check_packages, check_python
from emboundary.service.gpus import container
from emboundary.service.security.keys import new_key
from emboundary.service.settings import Settings


def test_an_old_python_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10, 1, "final", 0))
    finding = check_python()
    assert (finding.state, finding.found, finding.remedy) == ("failed", "3.10.1", "use Python 3.11 or newer")


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ["numpy<3,>=2", "zarr>=3", "httpx", 'torch; extra == "train"']
    monkeypatch.setattr(packages, "requires", lambda _: wanted)
    versions = {"numpy": "2.4", "emboundary": "0.1.0"}
    monkeypatch.setattr(packages, "_version", versions.get)
    assert (check_packages().state, check_packages().found) == ("failed", "missing: zarr, httpx")
    versions |= {"zarr": "3.1", "httpx": "0.28"}
    finding = check_packages()
    assert (finding.state, finding.found) == ("ok", "emboundary 0.1.0 and the 3 packages that it needs")
    assert finding.facts["versions"] == {"numpy": "2.4", "zarr": "3.1", "httpx": "0.28"}


def test_a_damaged_model_fails_by_its_hash(repository: Path, tmp_path: Path) -> None:
    zoo = tmp_path / "zoo"
    shutil.copytree(repository, zoo)
    assert check_models(zoo).state == "ok"
    with (zoo / "plain/1/model.onnx").open("ab") as file:
        file.write(b"x")
    finding = check_models(zoo)
    assert finding.state == "failed"
    assert "model.onnx has SHA-256" in finding.found


def test_missing_models_fail(tmp_path: Path) -> None:
    finding = check_models(tmp_path)
    assert finding.state == "failed"
    assert finding.found.startswith("model 'd4' not found")


def test_the_default_model_may_be_named_by_its_path(repository: Path, tmp_path: Path) -> None:
    shutil.copytree(repository / "d4", tmp_path / "mine")
    finding = check_models(repository, str(tmp_path / "mine/1/model.onnx"))
    assert finding.state == "ok"
    assert check_models(repository, str(tmp_path / "other/1/model.onnx")).state == "failed"


def test_files_in_other_precisions_are_checked_too(repository: Path, tmp_path: Path) -> None:
    zoo = tmp_path / "zoo"
    shutil.copytree(repository, zoo)
    card = zoo / "d4/1/description.json"
    variant = {"file": "float16.onnx", "sha256": "0" * 64, "symmetry_error": 1e-4}
    described = json.loads(card.read_text()) | {"variants": {"float16": variant}}
    described["precisions"] = described["precisions"] | {"float16": 5e-3}
    card.write_text(ModelDescription.model_validate(described).model_dump_json())
    finding = check_models(zoo)
    assert finding.state == "failed"
    assert "float16.onnx is missing" in finding.found


def test_keys_are_read(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(new_key("ann", frozenset({"predict"}))[1].line)
    finding = check_keys(Settings(api_keys_file=file, host="0.0.0.0"))
    assert (finding.state, finding.found) == ("ok", f"read from {file}")
    file.write_text("no key at all\n")
    assert check_keys(Settings(api_keys_file=file)).state == "failed"


def test_a_service_that_others_can_reach_needs_keys() -> None:
    assert check_keys(Settings()).found == "none; only this machine can reach the service (host 127.0.0.1)"
    finding = check_keys(Settings(host="0.0.0.0"))
    assert finding.state == "failed"
    assert "which others can reach, and no API keys are set" in finding.found
    assert "everybody may ask" in check_keys(Settings(host="0.0.0.0", no_auth=True)).found


def test_any_port_is_fine_with_0() -> None:
    assert check_port("127.0.0.1", 0).found == "any free one"


def test_a_port_in_use_fails_unless_the_service_itself_uses_it(
    settings: Settings, running: Callable[[FastAPI], AbstractContextManager[str]]
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        finding = check_port("127.0.0.1", port)
        assert (finding.state, finding.found) == ("failed", f"{port} of 127.0.0.1 is in use by another program")
        assert finding.facts["free"] is False
    assert check_port("127.0.0.1", port).state == "ok"
    with running(create_app(settings)) as url:
        finding = check_port("127.0.0.1", int(url.rpartition(":")[2]))
        assert finding.state == "ok"
        assert finding.found.endswith("emboundary serves there now")


def test_an_address_of_another_machine_cannot_be_listened_on() -> None:
    finding = check_port("192.0.2.1", 8000)
    assert finding.state == "failed"
    assert "cannot be listened on" in finding.found


def test_a_container_is_known_by_its_marks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(container, "_MARKS", (str(tmp_path / "mark"),))
    for name in ("container", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    assert not container.in_container()
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert container.in_container()
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
    (tmp_path / "mark").touch()
    assert container.in_container()
