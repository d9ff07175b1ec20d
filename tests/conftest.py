"""Fixtures of all tests: tiny networks as real model files; and ``--serving``, the tests that need no torch."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Generator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from emboundary.model.description import (
    METADATA_KEY,
    ModelDescription,
    Symmetry,
    TensorDescription,
    TrainingData,
    Validation,
)

STRIDE = 4
HALO = 8

# What the extra ``train`` brings and the extra ``serving-tests`` does not.
TRAINING = frozenset(
    {"matplotlib", "onnx_ir", "onnxscript", "safetensors", "scipy", "skimage", "sklearn", "torch", "waterz"}
)
# Long, and about arithmetic, which the versions of Python share, or about processes, which others start as well.
LONG = (
    "tests/laws/test_context.py",
    "tests/laws/test_symmetry.py",
    "tests/laws/test_tiling.py",
    "tests/service/test_demo.py",
    "tests/service/test_jobs_resume.py",
    "tests/service/test_openapi.py",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--serving``: see the option's help."""
    parser.addoption(
        "--serving",
        choices=("short", "whole"),
        help="skip, and say so, what needs the packages of training where they are missing; 'short': and what is long",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Leave tests out where ``--serving`` asks for it, and tell which."""
    if config.getoption("serving"):
        # As a plugin, because the hooks of this file do not see folders whose own conftest.py cannot be imported.
        config.pluginmanager.register(Serving(short=config.getoption("serving") == "short"))
        config.option.reportchars += "s"


class Serving:
    """Skips what cannot be imported without the packages of training, and what is long."""

    def __init__(self, *, short: bool) -> None:
        self._short = short

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(
        self, collector: pytest.Collector
    ) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        report = yield
        missing = re.search(r"No module named '(\w+)", str(report.longrepr)) if report.failed else None
        if missing is not None and missing[1] in TRAINING:
            report.outcome = "skipped"
            report.longrepr = (str(collector.path), 0, f"Skipped: it needs {missing[1]}, which only training installs")
        return report

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        long = pytest.mark.skip(reason="it is long; --serving=whole runs it, and so does make test")
        for item in items:
            if self._short and item.nodeid.partition("::")[0] in LONG:
                item.add_marker(long)


def _tiny_graph(rng: np.random.Generator, channels: int) -> onnx.GraphProto:
    """4x4 convolution of stride 4, transposed back, plus a 3x3 on the full resolution: depends on the phase."""
    weights = {
        "down": rng.normal(size=(3, channels, 4, 4)) / 4,
        "up": rng.normal(size=(3, 1, 4, 4)) / 2,
        "fine": rng.normal(size=(1, channels, 3, 3)) / 3,
    }
    nodes = [
        helper.make_node("Conv", ["image", "down"], ["coarse"], strides=[STRIDE, STRIDE]),
        helper.make_node("ConvTranspose", ["coarse", "up"], ["back"], strides=[STRIDE, STRIDE]),
        helper.make_node("Conv", ["image", "fine"], ["detail"], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["back", "detail"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["probability"]),
    ]
    image, probability = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", c, "y", "x"])
        for name, c in (("image", channels), ("probability", 1))
    )
    return helper.make_graph(
        nodes,
        "tiny",
        [image],
        [probability],
        [numpy_helper.from_array(w.astype(np.float32), name) for name, w in weights.items()],
    )


def write_tiny_model(repository: Path, name: str, seed: int, context: int = 0) -> Path:
    """Write NAME/1/model.onnx and its description; returns that folder.  ``context``: neighbours on each side."""
    description = ModelDescription(
        name=name,
        version="1",
        summary="a network of three convolutions for tests",
        input=TensorDescription(name="image"),
        output=TensorDescription(name="probability"),
        opset=17,
        trained_voxel_sizes_nm=((50.0, 4.6, 4.6),),
        receptive_field_radius=(context, 3, 3),
        halo=(context, HALO, HALO),
        stride=(1, STRIDE, STRIDE),
        symmetry=Symmetry(group="C1", error=0.5),
        precisions={"float32": 1e-6},
        training=(TrainingData(name="noise", sections="none", citation="none"),),
        weights_licence="CC0-1.0",
        validation=(Validation(protocol="none", roc_auc=0.5, average_precision=0.25),),
        parameters=105,
        flops_per_pixel=30.0,
        sha256=None,
    )
    model = helper.make_model(
        _tiny_graph(np.random.default_rng(seed), 2 * context + 1),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=10,
    )
    helper.set_model_props(model, {METADATA_KEY: description.model_dump_json()})
    content = model.SerializeToString()
    folder = repository / name / "1"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(content)
    card = json.loads(description.model_dump_json()) | {"sha256": hashlib.sha256(content).hexdigest()}
    (folder / "description.json").write_text(json.dumps(card))
    return folder


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model repository with ``d4`` (the default name) and ``plain``: two tiny networks."""
    folder = tmp_path_factory.mktemp("repository")
    write_tiny_model(folder, "d4", seed=0)
    write_tiny_model(folder, "plain", seed=1)
    return folder


@pytest.fixture(scope="session")
def repository_with_context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model repository with ``d4`` and ``deep``, which see each section amid one and two neighbours on each side."""
    folder = tmp_path_factory.mktemp("with_context")
    write_tiny_model(folder, "d4", seed=2, context=1)
    write_tiny_model(folder, "deep", seed=3, context=2)
    return folder
