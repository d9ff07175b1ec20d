"""``emboundary-train convert``: precisions for a model that is exported already."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from emboundary.model.repository import load_model
from emboundary.service import console
from emboundary.service.engine import OnnxEngine
from emboundary.training.cli import NAME, create_cli
from emboundary.training.samples import Source, read_samples

Convert = Callable[..., tuple[int, str]]


@pytest.fixture
def convert(capsys: pytest.CaptureFixture[str]) -> Convert:
    def call(*words: object) -> tuple[int, str]:
        capsys.readouterr()
        code = console.run(create_cli(), NAME, ["convert", *(str(word) for word in words)])
        return code, capsys.readouterr().err

    return call


@pytest.fixture
def model(published: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(published, tmp_path / "tiny" / "1"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_export_offers_all_precisions_and_each_is_near_its_tolerance_on_images_like_its_own(
    published: Path, data: Path
) -> None:
    entry = load_model(published)
    assert set(entry.description.precisions) == {"float32", "float16", "int8"}
    (image,) = read_samples([Source(data / "raw.tif", (5, 6))], 0).probes
    whole = OnnxEngine.open(entry, "cpu").run(image)
    for precision in ("float16", "int8"):
        engine = OnnxEngine.open(entry, "cpu", precision)
        assert engine.precision == precision
        assert 0 < np.abs(engine.run(image) - whole).max() < 3 * entry.description.precisions[precision]


def test_making_them_again_from_the_same_images_changes_nothing(convert: Convert, model: Path, data: Path) -> None:
    before = contents(model)
    words = (model, "--images", data / "raw.tif", "--sections", "0:4")
    code, said = convert(*words)
    assert code == 1
    assert said == (
        f"emboundary-train: error: model {model} cannot be converted: {model} has float16 already; --overwrite makes "
        "it again, and changes the hashes of all its files\n"
    )
    assert contents(model) == before
    code, said = convert(*words, "--overwrite")
    assert code == 0
    assert [line.partition(":")[0] for line in said.splitlines()] == ["float16", "int8"]
    assert contents(model) == before


def test_without_images_float16_alone_is_made_and_it_is_said_what_it_was_measured_on(
    convert: Convert, model: Path
) -> None:
    code, said = convert(model, "--overwrite")
    assert code == 0
    assert said.splitlines()[0] == "no --images: tolerances are measured on synthetic membranes"
    assert load_model(model).file("int8").is_file()
    code, said = convert(model, "--precision", "int8", "--overwrite")
    assert code == 1
    assert "int8 needs images" in said


def test_a_model_without_weights_cannot_be_converted(convert: Convert, model: Path, data: Path) -> None:
    (model / "weights.safetensors").unlink()
    code, said = convert(model, "--images", data / "raw.tif", "--overwrite")
    assert code == 1
    assert f"model {model} cannot be converted: {model / 'weights.safetensors'} cannot be read" in said
