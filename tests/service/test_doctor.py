from __future__ import annotations

import ctypes
import json
import shutil
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace

import pytest

from emboundary.service import diagnosis
from emboundary.service.cli import create_cli
from emboundary.service.console import run
from emboundary.service.diagnosis import Finding


def installed(**versions: str) -> Callable[[str], str]:
    """A stand-in for importlib.metadata.version; dashes are written as underscores."""

    def version(name: str) -> str:
        try:
            return versions[name.replace("-", "_")]
        except KeyError:
            raise PackageNotFoundError(name) from None

    return version


def test_an_intact_installation_has_no_failure(repository: Path) -> None:
    findings = diagnosis.diagnose(repository)
    assert [f.subject for f in findings] == ["Python", "packages", "ONNX Runtime", "GPU", "models", "inference"]
    assert [f for f in findings if f.state == "failed"] == []
    assert "d4 ran; " in findings[-1].found


def test_an_old_python_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10, 1, "final", 0))
    assert diagnosis.check_python() == Finding("Python", "failed", "3.10.1", "use Python 3.11 or newer")


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "requires", lambda _: ["numpy<3,>=2", "zarr>=3", "httpx", 'torch; extra == "train"'])
    monkeypatch.setattr(diagnosis, "version", installed(numpy="2.4"))
    assert diagnosis.check_packages().found == "missing: zarr, httpx"
    monkeypatch.setattr(diagnosis, "version", installed(numpy="2.4", zarr="3.1", httpx="0.28"))
    assert diagnosis.check_packages() == Finding("packages", "ok", "numpy 2.4, zarr 3.1, httpx 0.28")


def test_two_runtimes_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "version", installed(onnxruntime="1.31", onnxruntime_gpu="1.31"))
    finding = diagnosis.check_runtime()
    assert finding.state == "failed"
    assert finding.found.startswith("onnxruntime and onnxruntime-gpu are both installed")
    assert "pip uninstall onnxruntime onnxruntime-gpu" in finding.remedy


def test_no_runtime_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "version", installed())
    assert diagnosis.check_runtime().remedy == "pip install emboundary[cpu] or emboundary[gpu]"


def test_a_runtime_that_does_not_load_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: str) -> None:
        raise ImportError("libfoo.so: cannot open shared object file")

    monkeypatch.setattr(diagnosis, "version", installed(onnxruntime="1.31"))
    monkeypatch.setattr(diagnosis.importlib, "import_module", broken)
    assert diagnosis.check_runtime().found == "onnxruntime 1.31: libfoo.so: cannot open shared object file"


class Driver:
    """A stand-in for libcuda."""

    def __init__(self, gpus: int, error: int = 0) -> None:
        self.gpus, self.error = gpus, error

    def cuInit(self, _: int) -> int:  # noqa: N802
        return self.error

    def cuDeviceGetCount(self, count: object) -> int:  # noqa: N802
        count._obj.value = self.gpus  # type: ignore[attr-defined]
        return 0


@pytest.mark.parametrize(
    ("driver", "runtime", "state", "found"),
    [
        (None, "onnxruntime", "ok", "none visible (no NVIDIA driver): models run on the CPU"),
        (None, "onnxruntime_gpu", "note", "none visible (no NVIDIA driver): models run on the CPU"),
        (Driver(0), "onnxruntime_gpu", "note", "none visible (0 GPUs): models run on the CPU"),
        (Driver(0, 803), "onnxruntime_gpu", "note", "none visible (the NVIDIA driver answers error 803)"),
        (Driver(1), "onnxruntime", "note", "1 GPU, but this ONNX Runtime is for CPUs"),
        (Driver(2), "onnxruntime_gpu", "failed", "2 GPUs, but its libraries do not load: libcudnn.so.9: cannot open"),
    ],
)
def test_the_gpu_is_seen_or_it_is_said_why_not(
    monkeypatch: pytest.MonkeyPatch, driver: Driver | None, runtime: str, state: str, found: str
) -> None:
    def load(name: str, mode: int = 0) -> Driver:  # noqa: ARG001
        if name == "libcuda.so.1" and driver is not None:
            return driver
        raise OSError("libcudnn.so.9: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", load)
    monkeypatch.setattr(diagnosis, "version", installed(**{runtime: "1.31"}))
    fake = SimpleNamespace(preload_dlls=lambda: None, __file__="/nowhere/onnxruntime/__init__.py")
    monkeypatch.setattr(diagnosis.importlib, "import_module", lambda _: fake)
    finding = diagnosis.check_gpu()
    assert finding.state == state
    assert finding.found.startswith(found)
    assert bool(finding.remedy) == (state != "ok")


def test_a_damaged_model_fails_by_its_hash(repository: Path, tmp_path: Path) -> None:
    shutil.copytree(repository, tmp_path / "zoo")
    with (tmp_path / "zoo/plain/1/model.onnx").open("ab") as file:
        file.write(b"x")
    finding = diagnosis.check_models(tmp_path / "zoo")
    assert finding.state == "failed"
    assert "model.onnx has SHA-256" in finding.found


def test_missing_models_fail(tmp_path: Path) -> None:
    assert diagnosis.check_models(tmp_path).found == f"{tmp_path} holds no model d4"
    finding = diagnosis.check_inference(tmp_path)
    assert finding.state == "failed"
    assert finding.found.startswith("model 'd4' not found")


@pytest.mark.parametrize(("state", "code"), [("ok", 0), ("note", 0), ("failed", 1)])
@pytest.mark.parametrize("as_json", [False, True])
def test_the_exit_code_follows_what_is_needed(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    state: diagnosis.State,
    code: int,
    as_json: bool,
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    finding = Finding("ONNX Runtime", state, "what there is", "pip install emboundary[cpu]")
    monkeypatch.setattr("emboundary.service.commands.doctor.diagnose", lambda: [finding])
    assert run(create_cli(), "emboundary", ["doctor", *(["--json"] if as_json else [])]) == code
    shown = capsys.readouterr().out
    assert "pip install emboundary[cpu]" in shown
    if as_json:
        assert json.loads(shown) == {
            "ok": code == 0,
            "checks": [{"subject": "ONNX Runtime", "state": state, "found": "what there is", "remedy": finding.remedy}],
        }
