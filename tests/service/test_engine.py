from __future__ import annotations

import hashlib
import json
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper

from emboundary.model.description import METADATA_KEY
from emboundary.model.geometry import Footprint
from emboundary.model.repository import ModelEntry, load_model
from emboundary.service import engine
from emboundary.service.engine import IdentityEngine, OnnxEngine, find_model
from emboundary.service.engine.onnx_engine import CpuRunner
from emboundary.service.errors import DeviceError, ModelUnavailableError, UsageError


@pytest.fixture
def folder(repository: Path, tmp_path: Path) -> Path:
    """A copy of a tiny model, to be damaged."""
    return Path(shutil.copytree(repository / "d4" / "1", tmp_path / "d4" / "1"))


@pytest.fixture
def entry(repository: Path) -> ModelEntry:
    return load_model("d4", repository)


def rewrite(folder: Path, change: Any) -> ModelEntry:
    """Change the ONNX file, and the hash in its description with it."""
    model = onnx.load(folder / "model.onnx")
    change(model)
    content = model.SerializeToString()
    (folder / "model.onnx").write_bytes(content)
    redescribe(folder, sha256=hashlib.sha256(content).hexdigest())
    return load_model(folder)


def redescribe(folder: Path, **changes: Any) -> None:
    card = json.loads((folder / "description.json").read_text()) | changes
    (folder / "description.json").write_text(json.dumps(card))


def test_a_model_runs_on_the_cpu_as_onnx_runtime_says(entry: ModelEntry) -> None:
    found = OnnxEngine.open(entry, "cpu")
    images = np.random.default_rng(0).normal(size=(2, 1, 24, 36)).astype(np.float32)
    session = ort.InferenceSession(str(entry.path), providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(found.run(images), session.run(None, {"image": images})[0])
    assert (found.device, found.device_reason, found.precision) == ("cpu", "CPU, as asked", "float32")
    assert found.outputs == ("boundary",)
    assert found.footprint == Footprint((0, 8, 8), (1, 4, 4))


def test_the_same_images_give_the_same_bits(entry: ModelEntry) -> None:
    images = np.random.default_rng(0).normal(size=(1, 1, 64, 64)).astype(np.float32)
    first, second = OnnxEngine.open(entry, "cpu"), OnnxEngine.open(entry, "cpu")
    np.testing.assert_array_equal(first.run(images), first.run(images))
    np.testing.assert_array_equal(first.run(images), second.run(images))


def test_runs_from_several_threads_follow_each_other(entry: ModelEntry) -> None:
    inside: list[int] = []
    most: list[int] = []
    lock = threading.Lock()

    class Slow:
        def run(self, *_: object) -> list[Any]:
            with lock:
                inside.append(1)
                most.append(len(inside))
            threading.Event().wait(0.01)
            with lock:
                inside.pop()
            return [np.zeros((1, 1, 4, 4), np.float32)]

    runner = CpuRunner(Slow(), entry.description)
    threads = [threading.Thread(target=runner.run, args=(np.zeros((1, 1, 4, 4), np.float32),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1, 1]


def test_a_run_that_fails_names_the_device_and_the_remedy(entry: ModelEntry) -> None:
    found = OnnxEngine.open(entry, "cpu")
    with pytest.raises(
        DeviceError, match=r"cpu failed on images of shape \(1, 1, 8\): .*; if memory ran out, give a smaller"
    ):
        found.run(np.zeros((1, 1, 8), np.float32))


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_a_precision_that_is_not_offered_is_refused(entry: ModelEntry, precision: Any) -> None:
    with pytest.raises(
        UsageError, match=f"precision is {precision}; model d4 runs here in float32: give --precision accordingly"
    ):
        OnnxEngine.open(entry, "cpu", precision)


@pytest.mark.parametrize("content", [b"", b"no model at all", b"\x08\x08"])
def test_a_file_that_is_no_model_is_refused(folder: Path, content: bytes) -> None:
    (folder / "model.onnx").write_bytes(content)
    redescribe(folder, sha256=hashlib.sha256(content).hexdigest())
    with pytest.raises(ModelUnavailableError, match=r"model\.onnx is not a model that ONNX Runtime can load: "):
        OnnxEngine.open(load_model(folder), "cpu")


@pytest.mark.parametrize("text", [None, "{}", "no JSON"])
def test_a_file_without_its_description_is_refused(folder: Path, text: str | None) -> None:
    def change(model: onnx.ModelProto) -> None:
        del model.metadata_props[:]
        if text is not None:
            helper.set_model_props(model, {METADATA_KEY: text})

    with pytest.raises(ModelUnavailableError, match="does not carry the description that stands beside it; export"):
        OnnxEngine.open(rewrite(folder, change), "cpu")


def test_a_description_that_was_changed_is_refused(folder: Path) -> None:
    redescribe(folder, halo=[0, 16, 16])
    with pytest.raises(ModelUnavailableError, match="does not carry the description that stands beside it"):
        OnnxEngine.open(load_model(folder), "cpu")


def rename_input(model: onnx.ModelProto) -> None:
    for names in [node.input for node in model.graph.node]:
        names[:] = ["picture" if name == "image" else name for name in names]
    model.graph.input[0].name = "picture"


def fix_height(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 64


@pytest.mark.parametrize(
    ("change", "found"),
    [(rename_input, r"picture tensor\(float\)"), (fix_height, r"image tensor\(float\) \['n', 1, 64")],
)
def test_tensors_must_be_those_described(folder: Path, change: Any, found: str) -> None:
    with pytest.raises(ModelUnavailableError, match=rf"has input {found}.*, its description says image .*: export"):
        OnnxEngine.open(rewrite(folder, change), "cpu")


def test_unknown_models_are_refused_with_the_known_ones(repository: Path) -> None:
    with pytest.raises(ModelUnavailableError, match=r"model 'nothing' not found; give a name \(here: d4, plain\)"):
        find_model("nothing", repository)


def test_a_changed_file_is_refused(folder: Path) -> None:
    with (folder / "model.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(
        ModelUnavailableError, match=r"has SHA-256 .*, its description says .*: export or copy both again"
    ):
        find_model(folder / "model.onnx")


def test_the_identity_clips_and_copies() -> None:
    images = np.array([[[[-1.0, 0.25], [0.5, 2.0]]]], np.float32)
    found = IdentityEngine(Footprint((0, 0, 0), (1, 1, 1))).run(images)
    assert found.tolist() == [[[[0.0, 0.25], [0.5, 1.0]]]]
    assert not np.shares_memory(found, images)


def test_the_protocol_is_met(entry: ModelEntry) -> None:
    engines: list[engine.Engine] = [OnnxEngine.open(entry, "cpu"), IdentityEngine(entry.description.footprint)]
    assert all(e.run(np.zeros((1, 1, 4, 4), np.float32)).shape == (1, 1, 4, 4) for e in engines)
