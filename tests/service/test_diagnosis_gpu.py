from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from emboundary.service.diagnosis import gpu, runtime, serving
from emboundary.service.diagnosis.apart import ProbeError
from emboundary.service.diagnosis.gpu import check_gpu
from emboundary.service.diagnosis.question import Question
from emboundary.service.diagnosis.runtime import check_providers, check_runtime
from emboundary.service.diagnosis.serving import check_inference
from emboundary.service.diagnosis.tiny import TINY_MODEL, TinyModelError, run_tiny
from emboundary.service.gpus.runtime import Runtime

GIB = 2**30
H100 = {
    "index": 0,
    "name": "NVIDIA H100",
    "memory_bytes": 80 * GIB,
    "free_bytes": 79 * GIB,
    "compute_capability": [9, 0],
    "uuid": "GPU-1",
}
WORKING = {"version": "580.95.05", "cuda_version": [13, 0], "gpus": [H100], "fault": None, "reason": ""}
NONE = {"version": None, "cuda_version": None, "gpus": [], "fault": "absent", "reason": "no driver"}
NO_DRIVER = {"link": "driver", "what": "no driver", "remedy": "install the driver"}
NO_WHEEL = {"link": "runtime", "what": "a build without CUDA", "remedy": "install the other build"}
NO_CUDNN = {"link": "cudnn", "what": "cuDNN is missing: libcudnn.so.9", "remedy": "pip install nvidia-cudnn-cu13"}
ALL = ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider")
SHOWN = "0: NVIDIA H100, 79 of 80 GiB free, compute capability 9.0; driver 580.95.05, up to CUDA 13.0"


def answer(monkeypatch: pytest.MonkeyPatch, found: dict[str, Any] | str, module: Any = gpu) -> list[dict[str, Any]]:
    asked: list[dict[str, Any]] = []

    def ask(_: str, question: dict[str, Any], __: float) -> dict[str, Any]:
        asked.append(question)
        if isinstance(found, str):
            raise ProbeError(found)
        return dict(found)

    monkeypatch.setattr(module, "ask", ask)
    return asked


def looked(driver: dict[str, Any], missing: Any = None, libraries: Any = None) -> dict[str, Any]:
    return {"driver": driver, "runtime_cuda_version": [13, 0], "missing": missing, "libraries": libraries}


@pytest.mark.parametrize(
    ("driver", "missing", "device", "gpu_build", "state", "found"),
    [
        (WORKING, None, "auto", True, "ok", SHOWN),
        (WORKING, None, "cuda", True, "ok", SHOWN),
        (NONE, NO_WHEEL, "auto", False, "ok", "none: no driver; models run on the CPU"),
        (NONE, NO_WHEEL, "cuda", False, "failed", "a build without CUDA"),
        (NONE, NO_DRIVER, "auto", True, "note", "no driver; models run on the CPU"),
        (NONE, NO_DRIVER, "cuda", True, "failed", "no driver"),
        (NONE, NO_DRIVER, "cpu", True, "ok", "none: no driver; models run on the CPU"),
        (WORKING, NO_WHEEL, "auto", False, "note", f"{SHOWN}; not used: a build without CUDA"),
        (WORKING, NO_CUDNN, "auto", True, "note", f"{SHOWN}; not used: cuDNN is missing: libcudnn.so.9"),
        (WORKING, NO_CUDNN, "cpu", True, "ok", f"{SHOWN}; not used: device is cpu"),
    ],
)
def test_a_gpu_is_needed_where_it_was_asked_for(
    monkeypatch: pytest.MonkeyPatch,
    driver: dict[str, Any],
    missing: dict[str, Any] | None,
    device: str,
    gpu_build: bool,
    state: str,
    found: str,
) -> None:
    answer(monkeypatch, looked(driver, missing))
    finding = next(iter(check_gpu(device, gpu_build=gpu_build)))
    assert (finding.state, finding.found) == (state, found)
    assert bool(finding.remedy) == (state != "ok")
    assert finding.facts["usable"] == (missing is None)
    assert finding.facts["gpus"] == driver["gpus"]


@pytest.mark.parametrize(("device", "state"), [("auto", "note"), ("cuda", "failed")])
def test_libraries_are_looked_at_without_a_driver_too(monkeypatch: pytest.MonkeyPatch, device: str, state: str) -> None:
    missing = {
        "link": "cuda",
        "what": "CUDA libraries are missing: libcublas.so.13",
        "remedy": "pip install nvidia-cublas",
    }
    answer(monkeypatch, looked(NONE, NO_DRIVER, missing))
    _, libraries = check_gpu(device, gpu_build=True)
    assert (libraries.subject, libraries.state) == ("CUDA libraries", state)
    assert (libraries.found, libraries.remedy) == ("missing: libcublas.so.13", "pip install nvidia-cublas")


def test_libraries_that_the_gpu_misses_are_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, looked(WORKING, NO_CUDNN, NO_CUDNN))
    (finding,) = check_gpu("cuda", gpu_build=True)
    assert finding.found == "cuDNN is missing: libcudnn.so.9"


def test_a_driver_that_hangs_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, "no answer within 30 s")
    (finding,) = check_gpu("cuda", gpu_build=True)
    assert (finding.state, finding.found) == ("failed", "the NVIDIA driver: no answer within 30 s")


def test_two_runtimes_are_an_error() -> None:
    finding = check_runtime(Runtime({"onnxruntime-gpu": "1.31", "onnxruntime": "1.31"}, ALL))
    assert finding.state == "failed"
    assert finding.found.startswith("onnxruntime and onnxruntime-gpu are both installed")
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in finding.remedy


def test_no_runtime_is_an_error() -> None:
    finding = check_runtime(Runtime({}, error=ImportError("no module")))
    assert (finding.found, finding.remedy) == ("not installed", "pip install emboundary[cpu] or emboundary[gpu]")


def test_a_runtime_that_does_not_load_is_an_error() -> None:
    finding = check_runtime(Runtime({"onnxruntime": "1.31"}, error=ImportError("libfoo.so: cannot open shared object")))
    assert (finding.state, finding.found) == ("failed", "onnxruntime 1.31: libfoo.so: cannot open shared object")


def test_the_build_and_its_providers_are_named() -> None:
    finding = check_runtime(Runtime({"onnxruntime-gpu": "1.31.0"}, ALL, (13, 0)))
    assert (finding.state, finding.found) == ("ok", "onnxruntime-gpu 1.31.0 for TensorRT, CUDA, CPU")
    assert finding.facts["cuda_version"] == [13, 0]


@pytest.mark.parametrize(("gpu", "tried"), [(True, ["on CPU", "on CUDA", "on TensorRT"]), (False, ["on CPU"])])
def test_each_provider_runs_a_network_where_it_has_a_device(
    monkeypatch: pytest.MonkeyPatch, gpu: bool, tried: list[str]
) -> None:
    asked = answer(monkeypatch, {"open_seconds": 1.25, "run_seconds": 0.0005}, runtime)
    findings = list(check_providers(Runtime({}, ("AzureExecutionProvider", *ALL)), "auto", gpu=gpu))
    assert [finding.subject for finding in findings] == tried
    assert asked[0] == {"provider": "CPUExecutionProvider"}
    assert findings[0].found == "a convolution runs, 0.50 ms; ready after 1.2 s"
    assert findings[0].facts["run_seconds"] == 0.0005


@pytest.mark.parametrize(
    ("provider", "device", "state"),
    [("CUDA", "cuda", "failed"), ("CUDA", "auto", "note"), ("CPU", "auto", "failed"), ("CPU", "cuda", "note")],
)
def test_a_provider_that_fails_matters_where_it_is_needed(
    monkeypatch: pytest.MonkeyPatch, provider: str, device: str, state: str
) -> None:
    answer(monkeypatch, {"missing": NO_CUDNN}, runtime)
    (finding,) = check_providers(Runtime({}, (f"{provider}ExecutionProvider",)), device, gpu=True)
    assert (finding.state, finding.found) == (state, "cuDNN is missing: libcudnn.so.9")
    assert finding.remedy == "pip install nvidia-cudnn-cu13"
    assert finding.facts["works"] is False


def test_nobody_needs_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = {"link": "tensorrt", "what": "TensorRT is not whole: libnvinfer.so.10", "remedy": "pip install it"}
    answer(monkeypatch, {"missing": absent}, runtime)
    (finding,) = check_providers(Runtime({}, ("TensorrtExecutionProvider",)), "cuda", gpu=True)
    assert (finding.state, finding.remedy) == ("ok", "")
    assert finding.found == "not there: TensorRT is not whole: libnvinfer.so.10; optional (pip install it)"


def test_a_crash_of_a_provider_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, "the process that tried it was ended by SIGSEGV", runtime)
    (finding,) = check_providers(Runtime({}, ("CUDAExecutionProvider",)), "cuda", gpu=True)
    assert (finding.state, finding.found) == ("failed", "the process that tried it was ended by SIGSEGV")


def test_the_default_model_is_tried_as_it_will_be_served(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"model": "d4", "device": "cuda", "precision": "float16", "voxels_per_second": 5e7}
    asked = answer(monkeypatch, told, serving)
    finding = check_inference(Question(Path("e.toml"), {"device": "cuda"}))
    assert asked == [{"config": "e.toml", "options": {"device": "cuda"}}]
    assert finding.found.startswith("d4 ran in float16 on the GPU, one small image at 50.00 million voxels per second")
    assert finding.facts == {"works": True, **told}


def test_a_model_that_does_not_run_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, "device is cuda, but there is none", serving)
    finding = check_inference(Question())
    assert (finding.state, finding.found) == ("failed", "device is cuda, but there is none")


def test_the_tiny_network_runs_on_the_cpu() -> None:
    ran = run_tiny("CPUExecutionProvider")
    assert ran.open_seconds > 0
    assert ran.run_seconds > 0


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_another_provider_is_never_taken_instead() -> None:
    with pytest.raises(TinyModelError):
        run_tiny("NoSuchExecutionProvider")


def test_a_wrong_result_is_no_success(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = onnx.load(TINY_MODEL)
    (weights,) = model.graph.initializer
    weights.CopyFrom(numpy_helper.from_array(np.full((1, 1, 3, 3), 0.2, np.float32), weights.name))
    onnx.save(model, tmp_path / "wrong.onnx")
    monkeypatch.setattr("emboundary.service.diagnosis.tiny.TINY_MODEL", tmp_path / "wrong.onnx")
    with pytest.raises(TinyModelError, match="the result is wrong by"):
        run_tiny("CPUExecutionProvider")


def test_the_tiny_networks_file_is_the_one_described() -> None:
    pixels = [1, 1, "y", "x"]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]), helper.make_node("Sigmoid", ["c"], ["y"])],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, pixels)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, pixels)],
        [numpy_helper.from_array(np.full((1, 1, 3, 3), 1 / 9, np.float32), "w")],
    )
    made = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="emboundary"
    )
    assert made.SerializeToString(deterministic=True) == TINY_MODEL.read_bytes()
