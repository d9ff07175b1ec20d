from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from emboundary.model.description import ModelDescription
from emboundary.service.cli import create_cli
from emboundary.service.console import run


@pytest.fixture
def zoo(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "zoo"
    shutil.copytree(repository, folder)
    monkeypatch.setattr("emboundary.service.commands.models.ZOO", folder)
    monkeypatch.setenv("COLUMNS", "80")
    return folder


@pytest.mark.usefixtures("zoo")
def test_the_table_says_what_each_model_promises(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(create_cli(), "emboundary", ["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["model", "version", "symmetry", "error", "parameters", "kFLOP/px", "halo", "AUC", "AP"]
    assert [line.split()[0] for line in lines[1:3]] == ["d4", "plain"]
    assert lines[1].split() == ["d4", "1", "C1", "5.0e-01", "105", "0.0", "0x8x8", "0.50000", "0.2500"]
    assert lines[3] == "d4  a network of three convolutions for tests (weights: CC0-1.0)"


@pytest.mark.usefixtures("zoo")
def test_json_gives_whole_descriptions(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(create_cli(), "emboundary", ["models", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["models"]
    assert [ModelDescription.model_validate(model).name for model in found] == ["d4", "plain"]


def test_a_damaged_model_is_one_line_and_exit_code_1(zoo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (zoo / "d4/1/model.onnx").write_bytes(b"x")
    assert run(create_cli(), "emboundary", ["models"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "model.onnx has SHA-256" in line
